from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bootstrap.address import Address
from translator.objects.templates import DOMAIN_TEMPLATE
from xdserve.settings import LogLevel, Provision, Settings, SettingsError, Word, flag_of, load, variable_of


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("XDSERVE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def lines(**given: object) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load(**given)
    return list(error.value.lines)


def test_defaults() -> None:
    settings = load()
    assert settings.source is None
    assert (settings.kubeconfig, settings.namespaces, settings.selector) == (None, (), "")
    assert settings.provision is Provision.OPT_OUT
    assert (settings.gateway_image, settings.gateway_xds_address) == ("envoyproxy/envoy:v1.40.0", None)
    assert settings.xds_address == Address("127.0.0.1", 18000)
    assert settings.admin_address == Address("127.0.0.1", 19000)
    assert (settings.domain, settings.domain_template, settings.path_template, settings.url_scheme) == (None,) * 4
    assert settings.cluster_domain == "cluster.local"
    assert settings.allowed_hosts == {}
    assert (settings.name_backends_in_errors, settings.trusted_hops, settings.linger) == (False, 0, 5.0)
    assert (settings.xds_cert, settings.xds_key, settings.xds_client_ca, settings.xds_tokens) == (None,) * 4
    assert (settings.allow_plaintext, settings.allow_anonymous) == (False, False)
    assert settings.trust_domain == "cluster.local"
    assert (settings.patience, settings.admission_rate) == (15, 1000)
    assert (settings.connection_age, settings.drain) == (1800, 5)
    assert settings.last_good is True


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load().domain = "other.example"


def test_a_flag_wins_over_a_variable_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("domain: file.example\nlinger: 1\ntrusted_hops: 1\n")
    monkeypatch.setenv("XDSERVE_DOMAIN", "variable.example")
    monkeypatch.setenv("XDSERVE_LINGER", "2")
    settings = load({"domain": "flag.example", "linger": None}, file)
    assert (settings.domain, settings.linger, settings.trusted_hops) == ("flag.example", 2.0, 1)


def test_the_file_may_be_named_by_a_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("log_level: debug\n")
    monkeypatch.setenv("XDSERVE_CONFIG", str(file))
    assert load().log_level is LogLevel.DEBUG


def test_every_setting_can_come_from_each_source(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "source": "objects",
        "kubeconfig": "admin.conf",
        "namespaces": "models, shop",
        "selector": "team=models,stage in (test, live)",
        "provision": "opt-in",
        "gateway_image": "envoyproxy/envoy:distroless-v1.40.0",
        "gateway_pull_secrets": "images, more.images",
        "router_image": "mirror:5000/xdserve:1",
        "gateway_xds_address": "XDServe.xdserve.svc:18000",
        "kserve_config_map": "serving/inferenceservice-config",
        "gateway_address": "::",
        "gateway_ca_file": "/etc/pki/tls/certs/ca-bundle.crt",
        "gateway_replicas": "3",
        "gateway_pods": "true",
        "release": "blue",
        "allow_plaintext": "true",
        "allow_anonymous": "true",
        "xds_cert": "tls.crt",
        "xds_key": "tls.key",
        "xds_ca": "ca.crt",
        "xds_client_ca": "ca.crt",
        "xds_tokens": "tokens.yaml",
        "trust_domain": "Corp.Example",
        "xds_address": "0.0.0.0:1",
        "admin_address": "[::1]:0",
        "domain": "models.example",
        "domain_template": "{{ .Namespace }}-{{.Name}}.{{ .IngressDomain }}",
        "path_template": "/serving/{{ .Namespace }}/{{ .Name }}",
        "url_scheme": "https",
        "cluster_domain": "corp.example",
        "allowed_hosts": "models=*.example.org *=shared.example.org",
        "name_backends_in_errors": "true",
        "trusted_hops": "2",
        "linger": "0.5",
        "patience": "2",
        "admission_rate": "1.5",
        "connection_age": "0",
        "drain": "0",
        "last_good": "false",
        "state_directory": "state",
        "log_level": "error",
        "log_format": "json",
    }
    assert set(values) == set(Settings.model_fields)
    by_flag = load(values)
    for name, value in values.items():
        monkeypatch.setenv(variable_of(name), value)
    by_variable = load()
    for name in values:
        monkeypatch.delenv(variable_of(name))
    file.write_text("".join(f"{name}: '{value}'\n" for name, value in values.items()))
    assert by_flag == by_variable == load(config=file)
    assert by_flag.allowed_hosts == {"models": ("*.example.org",), "*": ("shared.example.org",)}


def test_a_source_is_a_directory_or_the_cluster(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({"source": "kubernetes"}).source is Word.KUBERNETES
    for directory in ("./kubernetes", "kubernetes/", "objects"):
        found = load({"source": directory}).source
        assert isinstance(found, Path)
        assert not isinstance(found, Word)
    monkeypatch.setenv("XDSERVE_SOURCE", "kubernetes")
    assert load().source is Word.KUBERNETES


def test_namespaces_in_every_form(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("namespaces: [models, shop, models]\n")
    assert load(config=file).namespaces == ("models", "shop")
    monkeypatch.setenv("XDSERVE_NAMESPACES", "models shop")
    assert load().namespaces == ("models", "shop")
    assert load({"namespaces": ["a,b", "c"]}).namespaces == ("a", "b", "c")


SELECTORS = [
    "",
    "a",
    "!a",
    "a=b",
    "a==b",
    "a != b",
    "a in (b,c)",
    "a notin (b), c",
    "example.com/a.b_c=d",
    "a=",
    "a in ()",
]


@pytest.mark.parametrize("selector", SELECTORS)
def test_selectors(selector: str) -> None:
    assert load({"selector": selector}).selector == selector


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"selector": "a b"}, "--selector: found 'a b', allowed a label selector"),
        ({"selector": "a=b,"}, "--selector: found 'a=b,', allowed a label selector"),
        ({"selector": "a&limit=1"}, "--selector: found 'a&limit=1', allowed a label selector"),
        ({"namespaces": ["Models"]}, "--namespaces: found ['Models'], allowed a namespace instead of 'Models'"),
        (
            {"gateway_pull_secrets": ["a_b"]},
            "--gateway-pull-secrets: found ['a_b'], allowed a name of a Secret instead of 'a_b'",
        ),
        ({"namespaces": 3}, "--namespaces: found 3, allowed a list"),
        ({"provision": "on"}, "--provision: found 'on', allowed 'opt-out', 'opt-in' or 'off'"),
        ({"gateway_image": "an image"}, "--gateway-image: found 'an image', allowed an image"),
        ({"router_image": ""}, "--router-image: found '', allowed an image, as in xdserve:"),
        ({"gateway_xds_address": "xdserve"}, "--gateway-xds-address: found 'xdserve', allowed HOST:PORT"),
        ({"gateway_xds_address": "xdserve:70000"}, "--gateway-xds-address: found 'xdserve:70000', allowed HOST:PORT"),
        ({"source": 3}, "--source: found 3, allowed a path"),
    ],
)
def test_wrong_settings_of_the_cluster(flags: dict[str, object], said: str) -> None:
    (line,) = lines(flags=flags)
    assert line.startswith(said)


def test_allowed_hosts_as_a_map_in_the_file(file: Path) -> None:
    file.write_text("allowed_hosts:\n  models: [A.example.org, '*.b.example.org']\n  '*': ['*']\n")
    assert load(config=file).allowed_hosts == {"models": ("a.example.org", "*.b.example.org"), "*": ("*",)}


def test_a_stronger_source_replaces_a_whole_map(file: Path) -> None:
    file.write_text("allowed_hosts: {models: [a.example.org]}\n")
    settings = load({"allowed_hosts": ["other=b.example.org", "other=c.example.org"]}, file)
    assert settings.allowed_hosts == {"other": ("b.example.org", "c.example.org")}


def test_empty_values_count_as_not_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("")
    monkeypatch.setenv("XDSERVE_DOMAIN", "")
    assert load(config=file).domain is None


def test_a_cluster_guards_the_port_by_a_certificate_and_tokens_of_its_own() -> None:
    cluster = {"source": "kubernetes", "xds_address": "0.0.0.0:18000"}
    assert load(cluster).xds_cert is None
    (line,) = lines(flags=cluster | {"xds_cert": "tls.crt", "xds_key": "tls.key"})
    assert line == "--xds-ca: not given, allowed a file, as xds_cert is given: gateways have to believe it"
    given = load(cluster | {"xds_cert": "tls.crt", "xds_key": "tls.key", "xds_ca": "ca.crt"})
    assert given.xds_ca == Path("ca.crt")


def test_variables_that_kubernetes_sets_for_a_service_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDSERVE_PORT", "XDSERVE_SERVICE_HOST", "XDSERVE_PORT_18000_TCP_ADDR"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:18000")
    assert load() == Settings()
    assert not {"port", "service_host", "service_port"} & set(Settings.model_fields)


@pytest.mark.parametrize(
    ("setting", "found", "allowed"),
    [
        ("xds_address", "localhost", "HOST:PORT (an IPv6 address in brackets), the port 0..65535"),
        ("admin_address", "::1:80", "HOST:PORT (an IPv6 address in brackets), the port 0..65535"),
        ("domain", "-a", "a DNS name, as in example.com"),
        ("cluster_domain", "a_b", "a DNS name, as in cluster.local"),
        ("domain_template", "{{ .Name }}.example.com", "what has .Name and .Namespace"),
        ("domain_template", "{{ .Name }}-{{ .Namespace", "braces in pairs"),
        ("domain_template", "{{ .Name }}_{{ .Namespace }}", f"a DNS name in lower case, as in {DOMAIN_TEMPLATE}"),
        ("domain_template", "{{ .Labels.x }}-{{ .Name }}", '.Name, .Namespace, .IngressDomain instead of ".Labels.x"'),
        (
            "domain_template",
            "{{ if .Name }}{{ .Namespace }}",
            '.Name, .Namespace, .IngressDomain instead of "if .Name"',
        ),
        (
            "path_template",
            "serving/{{ .Namespace }}/{{ .Name }}",
            "a path of letters, digits, ., _, ~ and -, as in /serving/{{ .Namespace }}/{{ .Name }}",
        ),
        ("path_template", "/{{ .IngressDomain }}/{{ .Name }}", '.Name, .Namespace instead of ".IngressDomain"'),
        ("url_scheme", "ftp", "'http' or 'https'"),
        ("trusted_hops", "-1", "0 or more"),
        ("trusted_hops", "1.5", "a whole number"),
        ("trusted_hops", "x" * 100, "a whole number"),
        ("linger", "soon", "a number"),
        ("linger", "1e9", "3600 or less"),
        ("linger", "nan", "a finite number"),
        ("allow_plaintext", "perhaps", "true or false"),
        ("allow_anonymous", "perhaps", "true or false"),
        ("last_good", "maybe", "true or false"),
        ("trust_domain", "spiffe://corp", "a DNS name, as in cluster.local"),
        ("patience", "0", "1 or more"),
        ("patience", "inf", "a finite number"),
        ("admission_rate", "0", "1 or more"),
        ("admission_rate", "many", "a number"),
        ("connection_age", "-1", "0 or more"),
        ("connection_age", "30m", "a number"),
        ("drain", "601", "600 or less"),
        ("xds_key", "tls.key", "none without xds_cert"),
        ("xds_ca", "ca.crt", "none without xds_cert"),
        ("gateway_replicas", "0", "1 or more"),
        ("kserve_config_map", "kserve", "NAMESPACE/NAME, as in kserve/inferenceservice-config, or empty"),
        ("kserve_config_map", "a.b/c", "NAMESPACE/NAME, as in kserve/inferenceservice-config, or empty"),
        ("gateway_address", "localhost", "an IP address, as in ::"),
        ("gateway_ca_file", "certs/ca.crt", "an absolute path, as in /etc/ssl/certs/ca-certificates.crt"),
        ("release", "My_Release", "a name of Kubernetes, as in xdserve"),
        ("xds_client_ca", "ca.crt", "none without xds_cert: client certificates are a part of TLS"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("log_format", "xml", "'auto', 'console' or 'json'"),
        ("allowed_hosts", "example.org", "NAMESPACE=PATTERN words, as in models=*.example.org"),
        ("allowed_hosts", "models=a.*.org", "a DNS name, *.NAME or * instead of 'a.*.org'"),
        ("allowed_hosts", "MODELS=a.org", "a namespace or * instead of 'MODELS'"),
    ],
)
def test_a_wrong_value_is_one_line_from_each_source(
    setting: str, found: str, allowed: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = repr(found) if len(repr(found)) <= 60 else repr(found)[:57] + "..."
    assert lines(flags={setting: found}) == [f"{flag_of(setting)}: found {shown}, allowed {allowed}"]
    monkeypatch.setenv(variable_of(setting), found)
    assert lines() == [f"{variable_of(setting)}: found {shown}, allowed {allowed}"]
    monkeypatch.delenv(variable_of(setting))
    file.write_text(f"{setting}: '{found}'\n")
    assert lines(config=file) == [f"{file}: {setting}: found {shown}, allowed {allowed}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("xds_adress: a:1\n", "xds_adress: no such setting, allowed source, "),
        ("domain: [a]\n", "domain: found ['a'], allowed text"),
        ("allowed_hosts: 3\n", "allowed_hosts: found 3, allowed a map of namespaces to lists of patterns"),
        ("allowed_hosts: {models: 3}\n", "allowed_hosts.models: found 3, allowed a list"),
        ("allowed_hosts: {models: [3]}\n", "allowed_hosts.models[0]: found 3, allowed text"),
        ("source: {a: b}\n", "source: found {'a': 'b'}, allowed a path"),
        ("namespaces: {a: b}\n", "namespaces: found {'a': 'b'}, allowed a list"),
        ("linger: yes\n", "linger: found True, allowed a number"),
        ("gateway_replicas: on\n", "gateway_replicas: found True, allowed a number"),
        ("xds_tokens: a\ndomain: b\nxds_tokens: c\n", "line 3, column 1: found key 'xds_tokens' twice in one map"),
        ("allowed_hosts: {models: [a], models: [b]}\n", "line 1, column 30: found key 'models' twice in one map"),
        (f"#{'x' * (1 << 20)}\nlog_level: debug\n", "found a file of more than 1048576 bytes, allowed 1048576"),
        ("xds_address: 18000\n", "xds_address: found 18000, allowed HOST:PORT"),
        ("- a\n", "found ['a'], allowed a map of settings"),
        ("1: 2\n", "found {1: 2}, allowed a map of settings"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here"),
        ("a: [\n", "line 2, column 1: "),
        ("a: \x00\n", "not YAML: "),
        ("? {a: b}\n: c\n", "line 1, column 3: found unhashable key"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, said: str, file: Path) -> None:
    file.write_text(text)
    (line,) = lines(config=file)
    assert line.startswith(f"{file}: {said}")
    assert line.isprintable()


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing"
    assert lines(config=missing) == [f"--config: {missing}: No such file or directory"]
    monkeypatch.setenv("XDSERVE_CONFIG", str(tmp_path))
    assert lines() == [f"XDSERVE_CONFIG: {tmp_path}: Is a directory"]


def test_all_wrong_values_are_said_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("log_level: loud\n")
    monkeypatch.setenv("XDSERVE_LINGER", "soon")
    assert [line.partition(" found")[0] for line in lines(flags={"domain": "a b"}, config=file)] == [
        "--domain:",
        "XDSERVE_LINGER:",
        f"{file}: log_level:",
    ]


def test_a_file_name_is_no_format(tmp_path: Path) -> None:
    path = tmp_path / "{flag}{0}.yaml"
    path.write_text("linger: x\n")
    assert lines(config=path) == [f"{path}: linger: found 'x', allowed a number"]


@pytest.mark.parametrize("address", ["0.0.0.0:18000", "[::]:18000", "10.0.0.1:18000", "xdserve.example.com:18000"])
def test_plain_text_stays_on_this_machine_unless_told(address: str) -> None:
    (line,) = lines(flags={"xds_address": address})
    assert line.startswith(f"--xds-address: found '{address}', allowed a loopback address")
    assert "--allow-plaintext" in line
    assert str(load({"xds_address": address, "allow_plaintext": True}).xds_address) == address


TLS = {"xds_cert": "tls.crt", "xds_key": "tls.key"}
ANYWHERE = {"xds_address": "0.0.0.0:18000"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
@pytest.mark.parametrize("given", [{}, TLS, {"xds_tokens": "tokens.yaml"}, {**TLS, "xds_client_ca": "ca.crt"}])
def test_loopback_needs_no_leave(address: str, given: dict[str, str]) -> None:
    assert str(load({"xds_address": address, **given}).xds_address) == address


@pytest.mark.parametrize(
    "given",
    [
        {**TLS, "xds_tokens": "tokens.yaml"},
        {**TLS, "xds_client_ca": "ca.crt"},
        {**TLS, "xds_client_ca": "ca.crt", "xds_tokens": "tokens.yaml"},
        {**TLS, "allow_anonymous": True},
        {"allow_plaintext": True},
    ],
)
def test_others_are_served_by_tls_and_identity_or_by_leave(given: dict[str, object]) -> None:
    assert load({**ANYWHERE, **given}).xds_address.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (TLS, "any peer is served, and needs --allow-anonymous"),
        ({**TLS, "allow_plaintext": True}, "any peer is served, and needs --allow-anonymous"),
        ({"allow_anonymous": True}, "xDS is plain text, and needs --allow-plaintext"),
        ({"xds_tokens": "tokens.yaml"}, "tokens are not taken as plain text, and need xds_cert"),
        (
            {"xds_tokens": "tokens.yaml", "allow_plaintext": True, "allow_anonymous": True},
            "tokens are not taken as plain text, and need xds_cert",
        ),
    ],
)
def test_no_leave_is_read_out_of_another(given: dict[str, object], said: str) -> None:
    (line,) = lines(flags={**ANYWHERE, **given})
    assert line.startswith("--xds-address: found '0.0.0.0:18000', allowed a loopback address: ")
    assert line.endswith(said)


def test_a_certificate_needs_its_key_wherever_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(flags={"xds_cert": "tls.crt"}) == ["--xds-key: not given, allowed a file, as xds_cert is given"]
    monkeypatch.setenv("XDSERVE_XDS_KEY", "tls.key")
    assert load({"xds_cert": "tls.crt"}).xds_key == Path("tls.key")
    assert lines() == ["XDSERVE_XDS_KEY: found 'tls.key', allowed none without xds_cert"]


def test_what_is_wrong_itself_is_not_told_twice() -> None:
    wrong = {**ANYWHERE, "xds_cert": 3, "xds_key": "tls.key", "xds_client_ca": "ca.crt"}
    assert lines(flags=wrong) == ["--xds-cert: found 3, allowed a path"]


def test_state_has_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert load().state_path == tmp_path / ".local/state/xdserve"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert load().state_path == tmp_path / ".local/state/xdserve"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert load().state_path == Path("/var/state/xdserve")
    assert load({"state_directory": "here"}).state_path == Path("here")


def test_without_a_home_directory_there_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert load().state_path is None


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def complaints(flags: dict[str, object] | None = None, config: Path | None = None) -> tuple[str, ...]:
    try:
        load(flags, config)
    except SettingsError as error:
        return error.lines
    return ()


@example(content="\ud7fc:".encode())
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_or_refused_in_lines(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    assert all(line.isprintable() for line in complaints(config=file))


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text() | st.integers() | st.none()))
def test_any_value_is_read_or_refused_in_lines(flags: dict[str, object]) -> None:
    assert all(line.startswith("--") and line.isprintable() for line in complaints(flags))
