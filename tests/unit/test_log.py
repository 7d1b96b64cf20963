from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest
import structlog

from xdserve import log
from xdserve.settings import LogFormat, LogLevel


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    structlog.get_logger("xdserve.test").info("edit taken", file="a\nb.yaml", versions={"cds": 1})
    (entry,) = entries(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", str(entry.pop("timestamp")))
    assert entry == {
        "event": "edit taken",
        "file": "a\nb.yaml",
        "versions": {"cds": 1},
        "level": "info",
        "logger": "xdserve.test",
    }


def test_lines_for_people_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    log.configure(stream=stream)
    structlog.get_logger("xdserve.test").warning("refused", gateway="models/iris")
    assert re.fullmatch(r"\S+Z \[warning  \] refused \[xdserve.test\] gateway=models/iris\n", stream.getvalue())


def test_colors_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        log.configure(log_format=LogFormat.CONSOLE, stream=stream)
        structlog.get_logger("xdserve.test").info("hello")
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in pipe.getvalue()


def test_the_standard_library_goes_the_same_way() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    logging.getLogger("grpc._cython").error("no %s", "route", extra={"peer": "a"})
    logging.getLogger("asyncio").info("selector")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = entries(stream)
    assert (first["event"], first["logger"], first["level"], first["peer"]) == (
        "no route",
        "grpc._cython",
        "error",
        "a",
    )
    assert second["logger"] == "py.warnings"


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_the_level_holds_for_all(log_format: LogFormat) -> None:
    stream = io.StringIO()
    log.configure(LogLevel.ERROR, log_format, stream)
    structlog.get_logger("xdserve.test").warning("a")
    logging.getLogger("grpc").warning("b")
    assert stream.getvalue() == ""


def test_a_traceback_is_one_json_line_without_local_variables() -> None:
    for log_format in LogFormat.JSON, LogFormat.CONSOLE:
        stream = io.StringIO()
        log.configure(log_format=log_format, stream=stream)
        try:
            int("".join(["s", "e", "c"]))
        except ValueError:
            secret = "-".join(["not", "shown"])
            structlog.get_logger("xdserve.test").exception("failed", length=len(secret))
        text = stream.getvalue()
        assert "ValueError: invalid literal" in text
        assert "not-shown" not in text
        assert (len(text.splitlines()) == 1) == (log_format is LogFormat.JSON)


def test_what_is_logged_does_not_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    log.configure(stream=stream)
    structlog.get_logger("xdserve.test").info("node\x1b[2J", id="a\rb\x07")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().strip().isprintable()


def test_a_value_without_json_form_is_shown() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    structlog.get_logger("xdserve.test").info("x", value={1, 2}, other=b"\xff")
    assert entries(stream)[0]["value"] == "{1, 2}"
