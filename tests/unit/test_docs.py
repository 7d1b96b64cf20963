"""What the documents show is what the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from translator.objects import parse
from translator.objects.policy import TrafficPolicy
from translator.plan import Condition, Reason
from xdserve import cli
from xdserve.conditions import NO_GATEWAY, PENDING, REJECTED
from xdserve.settings import Settings, load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(text: str, language: str, containing: str) -> str:
    return next(found for found in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if containing in found)


@pytest.mark.parametrize("path", ["README.md", "docs/backends.md"])
def test_the_policies_of_the_documents_are_some(path: str) -> None:
    text = block((ROOT / path).read_text(), "yaml", "TrafficPolicy")
    assert isinstance(parse(yaml.safe_load(text)), TrafficPolicy)


def test_the_settings_of_the_documents_are_some(tmp_path: Path) -> None:
    text = block((ROOT / "docs/configuration.md").read_text(), "yaml", "allowed_hosts")
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert load(config=file).model_fields_set == set(yaml.safe_load(text))


def test_the_commands_of_the_documents_exist(capfd: pytest.CaptureFixture[str]) -> None:
    texts = [README, *(path.read_text() for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])]
    shown = re.compile(r"^(?:\.venv/bin/)?xdserve (bootstrap [^>\n]*[^>\s])", re.MULTILINE)
    lines = {line for text in texts for line in shown.findall(text)}
    assert lines
    for line in lines - {"bootstrap --gateway NS/NAME --xds-address HOST:PORT [OPTIONS]"}:
        assert cli.main(shlex.split(line)) == 0, line
    assert capfd.readouterr().err == ""


def test_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def test_links_into_a_document_lead_to_a_heading_of_it() -> None:
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]:
        for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", path.read_text()):
            headings = re.findall(r"^#+ (.+)$", ((path.parent / target) if target else path).read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path.relative_to(ROOT)}: {target}#{anchor}"


@pytest.mark.parametrize("name", ["troubleshooting", "api"])
def test_every_reason_is_explained(name: str) -> None:
    text = (ROOT / f"docs/{name}.md").read_text()
    reasons = {reason.value for reason in Reason} | {condition.value for condition in Condition}
    assert not [reason for reason in {*reasons, PENDING, REJECTED, NO_GATEWAY} if reason not in text]


def test_no_setting_is_left_out_of_the_documents() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    assert not [name for name in Settings.model_fields if f"| `{name}` |" not in text]
