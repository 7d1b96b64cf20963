"""An unusable variable ends the router with exit code 2 and one line that names it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.router.rig import HOST, environment
from xdserve.router.settings import Overflow, Protocol, RouterSettings, load, variable_of
from xdserve.settings import SettingsError


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("MAX_CONCURRENCY", "ten", "MAX_CONCURRENCY: found 'ten', allowed a whole number"),
        ("MAX_CONCURRENCY", "0", "MAX_CONCURRENCY: found '0', allowed 1 or more"),
        ("MAX_CONCURRENCY", "1.5", "MAX_CONCURRENCY: found '1.5', allowed a whole number"),
        ("MAX_CONCURRENCY", "9" * 5000, "MAX_CONCURRENCY: found '9999"),
        ("QUEUE_LIMIT", "-1", "QUEUE_LIMIT: found '-1', allowed 0 or more"),
        ("OVERFLOW", "drop", "OVERFLOW: found 'drop', allowed 'queue' or 'reject'"),
        ("PROCESSING_MS", "nan", "PROCESSING_MS: found 'nan', allowed a finite number"),
        ("PROCESSING_MS", "-1", "PROCESSING_MS: found '-1', allowed 0 or more"),
        ("PORT", "70000", "PORT: found '70000', allowed 65535 or less"),
        ("GRPC_PORT", "grpc", "GRPC_PORT: found 'grpc', allowed a whole number"),
        ("MAX_BODY_BYTES", "64MiB", "MAX_BODY_BYTES: found '64MiB', allowed a whole number"),
        ("UPSTREAM_PROTOCOL", "grpc", "UPSTREAM_PROTOCOL: found 'grpc', allowed 'v1', 'v2' or 'openai'"),
        ("UPSTREAM_TIMEOUT_SECONDS", "0", "UPSTREAM_TIMEOUT_SECONDS: found '0', allowed more than 0"),
        ("VARIANT", "a\nb", "VARIANT: found 'a\\nb', allowed printable ASCII characters"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: found 'loud', allowed "),
        *(
            ("UPSTREAM_URL", url, "UPSTREAM_URL: found what is no such address, allowed http(s)://HOST[:PORT][/PATH]")
            for url in (
                "model:8080",
                "ftp://a",
                "http://",
                "http://a:99999",
                "http://a?b=c",
                "http://u:p@a",
                "//a",
                "http://[",
            )
        ),
    ],
)
def test_a_wrong_value_is_one_line(name, value, line):
    with pytest.raises(SettingsError) as raised:
        load({name: value})
    (said,) = raised.value.lines
    assert said.startswith(line)
    assert "\n" not in said


def test_credentials_in_a_url_are_not_said():
    with pytest.raises(SettingsError) as raised:
        load({"UPSTREAM_URL": "http://user:secret@host"})
    assert "secret" not in str(raised.value)


def test_variables_that_do_not_go_together():
    with pytest.raises(
        SettingsError, match=r"^MAX_HELD_BYTES: found less than MAX_BODY_BYTES, allowed as much or more$"
    ):
        load({"MAX_HELD_BYTES": "10"})
    with pytest.raises(
        SettingsError, match=r"^GRPC_PORT: found beside UPSTREAM_URL, allowed with the simulation alone$"
    ):
        load({"GRPC_PORT": "1", "UPSTREAM_URL": "http://a"})


def test_each_wrong_variable_has_its_line():
    with pytest.raises(SettingsError) as raised:
        load({"PORT": "x", "OVERFLOW": "x"})
    assert [line.partition(":")[0] for line in raised.value.lines] == ["OVERFLOW", "PORT"]


def test_nothing_given_is_well_and_blanks_are_nothing():
    settings = load({"HOSTNAME": "pod"})
    blank = load({variable_of(name): "  " for name in RouterSettings.model_fields} | {"HOSTNAME": "pod"})
    assert settings == blank
    assert (settings.max_concurrency, settings.port, settings.overflow) == (10, 8080, Overflow.QUEUE)
    assert (settings.max_body_bytes, settings.upstream_timeout_seconds) == (64 * 2**20, 600)
    assert (settings.upstream_protocol, settings.grpc_port, settings.answers_as) == (Protocol.V1, None, "pod")
    assert load({}).hostname


def test_values_are_read_as_a_manifest_gives_them():
    settings = load({"KV_ENDPOINTS": " a:1 ,, b:2,", "MAX_CONCURRENCY": " 7 ", "UPSTREAM_URL": "https://a/b/"})
    assert (settings.kv_endpoints, settings.max_concurrency) == (("a:1", "b:2"), 7)
    assert settings.upstream_url == "https://a/b"
    assert load({"KV_ENDPOINTS": " , "}).kv_endpoints == ()


def test_what_kubernetes_sets_for_a_service_called_grpc_is_not_for_us():
    assert load({"GRPC_PORT": "tcp://10.0.0.1:9000"}).grpc_port is None


def run(**variables):
    command = [sys.executable, "-m", "xdserve", "router"]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


def test_the_process_ends_with_2_and_one_line():
    result = run(MAX_CONCURRENCY="many")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "xdserve: MAX_CONCURRENCY: found 'many', allowed a whole number\n"


def test_a_port_that_is_taken_ends_the_process_with_1(shared):
    result = run(ADDRESS=HOST, PORT=str(shared.port), LOG_FORMAT="json")
    assert result.returncode == 1
    assert "cannot listen" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    result = run(ADDRESS=HOST, PORT="0", GRPC_PORT=str(shared.grpc_port), LOG_FORMAT="json")
    assert result.returncode == 1
    assert "cannot listen" in result.stderr
    assert "Traceback" not in result.stderr
