"""The command line, run as users run it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
import structlog
import typer
import yaml
from aiohttp import ClientSession

import bootstrap
from tests.support.wait import wait_until
from xdserve import cli
from xdserve.settings import Settings, flag_of

ROOT = Path(__file__).parents[2]
COMMANDS = "serve, translate, validate, diff, bootstrap, router or demo"
BOOTSTRAP = ("bootstrap", "--gateway", "models/iris", "--xds-address", "xdserve:18000")
NO_SOURCE = "--source: not given, allowed a directory or kubernetes (also XDSERVE_SOURCE, or in the file of settings)"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "xdserve", *arguments],
        capture_output=True, text=True, check=False, timeout=60, env={**environment, "NO_COLOR": "1", **variables},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    """Commands configure the log of the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"xdserve {metadata.version('xdserve')}\n")


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in ("serve", "translate", "validate", "diff", "bootstrap", "router", "demo"):
        assert command in result.stdout
        assert run(command, "--help").returncode == 0


@pytest.mark.parametrize("command", ["serve", "translate", "validate", "diff", "bootstrap", "router", "demo"])
def test_help_shows_each_flag_and_all_of_its_words_on_a_terminal_of_80_columns(command: str) -> None:
    shown = " ".join(run(command, "--help", COLUMNS="80").stdout.replace("│", " ").split())
    for option in typer.main.get_command(cli.app).commands[command].params:
        assert not [name for name in option.opts if name.startswith("-") and f"{name} " not in shown.replace(",", " ")]
        # A word that is longer than a line is left of it is broken at a hyphen.
        assert "".join(str(option.help or "").split()) in "".join(shown.split())


@pytest.mark.parametrize(
    "arguments", [("--version",), BOOTSTRAP, ("translate", "examples"), ("validate", "examples", "-o", "json")]
)
def test_a_full_disk_is_one_line_and_no_finding(arguments: Sequence[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "xdserve", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60, cwd=ROOT,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (2, "xdserve: standard output: No space left on device\n")


def test_without_a_standard_output_it_is_no_fault() -> None:
    closed = subprocess.run(
        ["sh", "-c", '"$0" -m xdserve "$@" >&-', sys.executable, "validate", "examples"],
        stderr=subprocess.PIPE, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert (closed.returncode, closed.stderr) == (0, "")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, xdserve.cli; print(*sorted(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pydantic", "grpc", "aiohttp", "yaml", "structlog", "betterproto2", "asyncio"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), f"a command is missing: {COMMANDS} (xdserve --help tells more)"),
        (("sevre",), "No such command 'sevre'. Did you mean 'serve'?"),
        (("serve", "--sorce", "."), "No such option: --sorce (Possible options: --source)"),
        (("serve",), NO_SOURCE),
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
        (
            (*BOOTSTRAP, "--key", "tls.key", "--ca", "ca.pem", "--directory", "."),
            "--cert: not given, allowed a file, as key is given",
        ),
        (
            (*BOOTSTRAP, "--ca", "ca.pem"),
            "--directory: not given, allowed a directory, as ca is given: Envoy re-reads by files in it",
        ),
        (
            (*BOOTSTRAP, "--token-file", "token", "--directory", "."),
            "--ca: not given, allowed a file, as token_file is given: a token is sent as plain text to loopback alone",
        ),
        (
            (*BOOTSTRAP, "--ca", "ca.pem", "--server-name", "a/b", "--directory", "."),
            "--server-name: found 'a/b', allowed a DNS name",
        ),
        (
            (*BOOTSTRAP, "--directory", "/dev/null/x"),
            "--directory: found '/dev/null/x', allowed a directory that can be written to (Not a directory)",
        ),
        (("serve", "--xds-cert", "tls.crt"), "--xds-key: not given, allowed a file, as xds_cert is given"),
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


def test_bootstrap_writes_what_it_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    files = {"ca": "ca.pem", "cert": "tls.crt", "key": "tls.key", "token_file": "token"}
    flags = [word for name, file in files.items() for word in (flag_of(name), str(tmp_path / file))]
    several = ("--xds-address", "10.0.0.1:18000", "--node-id", "pod-1", "--directory", str(folder))
    for _ in range(2):  # again over its own
        assert cli.main([*BOOTSTRAP, *several, *flags]) == 0
    assert capfd.readouterr() == ("", "")

    addresses = ("xdserve:18000", "10.0.0.1:18000")
    paths = {name: tmp_path / file for name, file in files.items()}
    credentials = bootstrap.Credentials(**paths, directory=folder)
    expected = {
        **bootstrap.secrets(credentials, addresses),
        "envoy.yaml": bootstrap.render("models/iris", addresses, credentials=credentials, node_id="pod-1"),
    }
    assert {path.name: yaml.safe_load(path.read_text()) for path in folder.iterdir()} == expected


def test_paths_of_credentials_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*BOOTSTRAP, "--ca", "ca.pem", "--directory", ".", "-o", "json"]) == 0
    assert str(tmp_path / "xdserve-ca.yaml") in (tmp_path / "envoy.json").read_text()
    assert str(tmp_path / "ca.pem") in (tmp_path / "xdserve-ca.yaml").read_text()


def test_serve_needs_a_place_for_last_good_or_leave(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Settings, "state_path", None)
    assert cli.main(["serve", "--source", "."]) == 2
    assert capfd.readouterr().err.startswith("xdserve: --state-directory: not given, allowed a directory")


EXAMPLES = Path(__file__).parents[2] / "examples"

INVALID = """
apiVersion: xdserve.io/v1alpha1
kind: TrafficPolicy
metadata: {name: iris, namespace: models}
spec:
  targetRef: {group: serving.kserve.io, kind: InferenceService, name: iris}
  split: [{backend: predictor, weight: -1}]
"""


@pytest.mark.parametrize(("form", "read"), [("yaml", yaml.safe_load), ("json", json.loads)])
def test_translate_prints_resources_by_gateway(form: str, read: object, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["translate", str(EXAMPLES), "-o", form]) == 0
    out, err = capfd.readouterr()
    resources = read(out)
    assert set(resources) == {"models/iris", "models/llm", "models/mnist"}
    assert set(resources["models/iris"]) == {"clusters", "endpoints", "listeners", "routes"}
    assert err == ""

    assert cli.main(["translate", str(EXAMPLES), "-o", form, "--gateway", "models/iris"]) == 0
    assert read(capfd.readouterr().out) == {"models/iris": resources["models/iris"]}


def test_translate_heeds_the_settings(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["translate", str(EXAMPLES / "iris"), "--domain", "models.example"]) == 0
    out = capfd.readouterr().out
    assert "iris-models.models.example" in out
    assert "example.com" not in out


def test_a_warning_is_said_and_is_no_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (EXAMPLES / "iris" / "iris.yaml").read_text()
    ignored = text.replace("  predictor:\n", "  predictor:\n    canaryTrafficPercent: 10\n", 1)
    (tmp_path / "iris.yaml").write_text(ignored)
    assert cli.main(["translate", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert set(yaml.safe_load(out)) == {"models/iris"}
    assert any(line.startswith("warning: ") and "canaryTrafficPercent" in line for line in err.splitlines())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (INVALID, "found -1"),
        ("a: [\n", "objects.yaml"),
        ("", "no InferenceService or Inference here"),
    ],
)
def test_findings_are_lines_and_exit_1(text: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "objects.yaml").write_text(text)
    assert cli.main(["translate", str(tmp_path)]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert any(said in line for line in errors), errors


@contextmanager
def serving(*arguments: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "xdserve",
        "serve",
        "--log-format",
        "json",
        "--admin-address",
        "127.0.0.1:0",
        "--state-directory",
        str(log.parent / "state"),
        *arguments,
    ]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def events(log: Path) -> dict[str, dict[str, object]]:
    return {entry["event"]: entry for entry in map(json.loads, log.read_text().splitlines())}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_becomes_ready_and_stops_when_told(number: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving("--source", str(EXAMPLES), "--xds-address", "127.0.0.1:0", log=log) as process:
        await wait_until(lambda: '"ready"' in log.read_text(), 30)
        async with (
            ClientSession(f"http://{events(log)['listening']['admin']}") as client,
            client.get("/readyz") as answer,
        ):
            assert answer.status == 200
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert events(log)["ready"]["gateways"] == 3


async def test_serve_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    missing = tmp_path / "none"
    with serving("--source", str(missing), "--xds-address", "127.0.0.1:0", log=log) as process:
        assert await asyncio.to_thread(process.wait, 30) == 1
    assert str(missing) in str(events(log)["cannot start"]["cause"])

    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        options = ("--source", str(EXAMPLES), "--xds-address", "127.0.0.1:0", "--admin-address", address)
        with serving(*options, log=log) as process:
            assert await asyncio.to_thread(process.wait, 30) == 1
    assert str(events(log)["cannot start"]["cause"]).startswith(f"admin_address {address}: ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = (
        f"{sys.executable} -m xdserve bootstrap --gateway models/iris --xds-address a:1 | true; exit ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode in {0, 141}, result.stderr) == (True, "")
