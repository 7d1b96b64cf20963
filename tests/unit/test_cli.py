"""The command line, run as users run it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import typer
import yaml

import bootstrap
from xdserve import cli
from xdserve.settings import Settings, flag_of

NO_SOURCE = "--source: not given, allowed a directory (also XDSERVE_SOURCE, or source in the file of settings)"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "xdserve", *arguments],
        capture_output=True, text=True, check=False, timeout=60, env={**environment, "NO_COLOR": "1", **variables},
    )  # fmt: skip


def test_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"xdserve {metadata.version('xdserve')}\n")


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in ("serve", "translate", "bootstrap", "demo"):
        assert command in result.stdout
        assert run(command, "--help").returncode == 0


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, xdserve.cli; print(*sorted(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pydantic", "grpc", "aiohttp", "yaml", "structlog", "betterproto2", "asyncio"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a command is missing: serve, translate, bootstrap or demo (xdserve --help tells more)"),
        (("sevre",), "No such command 'sevre'. Did you mean 'serve'?"),
        (("serve", "--sorce", "."), "No such option: --sorce (Possible options: --source)"),
        (
            ("serve",),
            "--source: not given, allowed a directory (also XDSERVE_SOURCE, or source in the file of settings)",
        ),
        (("serve", "--linger", "soon"), "--linger: found 'soon', allowed a number"),
        (("serve", "--config", "/none"), "--config: /none: No such file or directory"),
        (("translate",), "Missing argument 'PATH...'."),
        (("translate", "/none"), "PATH: found '/none', allowed a file or directory that exists"),
        (("translate", ".", "--gateway", "iris"), "--gateway: found 'iris', allowed NAMESPACE/NAME"),
        (("translate", ".", "-o", "xml"), "Invalid value for '--output' / '-o': 'xml' is not one of 'yaml', 'json'."),
        (("bootstrap", "--xds-address", "a:1"), "Missing option '--gateway'."),
        (("bootstrap", "--gateway", "Iris", "--xds-address", "a:1"), "--gateway: found 'Iris', allowed NAMESPACE/NAME"),
        (
            ("bootstrap", "--gateway", "models/iris", "--xds-address", "a"),
            "--xds-address: found 'a', allowed HOST:PORT (an IPv6 address in brackets), the port 1..65535",
        ),
        (
            ("bootstrap", "--gateway", "models/iris", "--xds-address", "a:0"),
            "--xds-address: found 'a:0', allowed a port 1..65535",
        ),
        (
            ("bootstrap", "--gateway", "models/iris", "--xds-address", "a:1", "--admin-address", "b"),
            "--admin-address: found 'b', allowed HOST:PORT (an IPv6 address in brackets), the port 1..65535",
        ),
        (
            ("bootstrap", "--gateway", "models/iris", "--xds-address", "a:1", "--node-id", "a b"),
            "--node-id: found 'a b', allowed 1..512 printable ASCII characters without blanks",
        ),
        (("demo", "--seconds", "0"), "--seconds: found '0.0', allowed 0.1..600"),
        (("demo", "--seconds", "nan"), "--seconds: found 'nan', allowed 0.1..600"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: Sequence[str], said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith("XDSERVE_"):
            monkeypatch.delenv(name)
    assert cli.main(arguments) == 2
    assert capfd.readouterr() == ("", f"xdserve: {said}\n")


def test_wrong_settings_name_their_source() -> None:
    result = run("serve", "--source", ".", XDSERVE_LOG_LEVEL="loud", XDSERVE_XDS_ADDRESS="0.0.0.0:1")
    assert result.returncode == 2
    assert [line.partition(" found")[0] for line in result.stderr.splitlines()] == [
        "xdserve: XDSERVE_XDS_ADDRESS:",
        "xdserve: XDSERVE_LOG_LEVEL:",
    ]


def test_every_setting_is_a_flag_of_serve_with_the_same_words() -> None:
    command = typer.main.get_command(cli.app).commands["serve"]
    flags = {option.opts[0]: option.help for option in command.params}
    assert flags.pop("--config") == "File of settings (YAML), also XDSERVE_CONFIG"
    assert flags == {flag_of(name): field.description for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize(("form", "read"), [("yaml", yaml.safe_load), ("json", json.loads)])
def test_bootstrap_prints_what_is_rendered(form: str, read: object) -> None:
    options = ("--gateway", "models/iris", "--xds-address", "xdserve:18000", "--node-id", "pod-1", "-o", form)
    result = run("bootstrap", *options, "--admin-address", "127.0.0.1:9902")
    expected = bootstrap.render("models/iris", "xdserve:18000", node_id="pod-1", admin_address="127.0.0.1:9902")
    assert (result.returncode, result.stderr) == (0, "")
    assert read(result.stdout) == expected


@pytest.fixture
def fake_app(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands for what the program runs, which has tests of its own: here it is about flags, output and exit codes."""
    module = ModuleType("xdserve.app")
    monkeypatch.setitem(sys.modules, "xdserve.app", module)
    monkeypatch.setattr("xdserve.app", module, raising=False)
    monkeypatch.setattr("xdserve.log.configure", lambda *_: None)
    return module


RESOURCES = {"models/iris": {"clusters": [{"name": "models/iris/größer", "connect_timeout": "2s"}], "routes": []}}


@pytest.mark.parametrize(
    ("findings", "code"), [([], 0), (["warning: a: b"], 0), (["warning: a: b", "iris.yaml: spec: c"], 1)]
)
def test_translate_prints_resources_and_findings(
    findings: list[str], code: int, fake_app: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []

    def translate(*arguments: object) -> SimpleNamespace:
        calls.append(arguments)
        return SimpleNamespace(resources=RESOURCES, findings=findings)

    fake_app.translate = translate
    flags = ("--gateway", "models/iris", "--domain", "models.example", "--allowed-hosts", "a=b.example")
    assert cli.main(["translate", str(tmp_path), *flags, "--name-backends-in-errors"]) == code
    out, err = capfd.readouterr()
    assert yaml.safe_load(out) == RESOURCES
    assert err.splitlines() == findings
    (paths, gateway, settings) = calls[0]
    assert (paths, gateway, settings.domain) == ([tmp_path], "models/iris", "models.example")
    assert (settings.allowed_hosts, settings.name_backends_in_errors) == ({"a": ("b.example",)}, True)

    assert cli.main(["translate", str(tmp_path), "-o", "json"]) == code
    assert json.loads(capfd.readouterr().out) == RESOURCES


@pytest.mark.parametrize("code", [0, 1])
def test_serve_runs_the_program_and_gives_its_exit_code(code: int, fake_app: ModuleType, tmp_path: Path) -> None:
    async def serve(settings: Settings) -> int:
        assert settings.source == tmp_path
        assert settings.linger == 0.5
        return code

    fake_app.serve = serve
    assert cli.main(["serve", "--source", str(tmp_path), "--linger", "0.5"]) == code


def test_ctrl_c_is_quiet(fake_app: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def serve(_: Settings) -> int:
        raise KeyboardInterrupt

    fake_app.serve = serve
    assert cli.main(["serve", "--source", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = (
        f"{sys.executable} -m xdserve bootstrap --gateway models/iris --xds-address a:1 | true; exit ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode in {0, 141}, result.stderr) == (True, "")
