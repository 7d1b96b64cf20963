"""The command line: what it takes, and exit codes 0 (well), 1 (findings), 2 (wrong usage), 130 (Ctrl-C).

Commands import what they need when they run: `xdserve --help` answers at once. Flags of settings are read as text, so
that a flag, a variable and a file are checked in one place (`xdserve.settings`) and wrong ones read alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.exceptions import TyperException

from xdserve import flags
from xdserve.demo import SCENARIOS
from xdserve.flags import AllowedHosts, Config, Domain, NameBackends, TrustedHops, flag

if TYPE_CHECKING:
    from bootstrap import Address
    from translator.planners.options import Options
    from xdserve.offline.validation import Validated
    from xdserve.settings import Settings

USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141  # as a shell says it of a program ended by SIGPIPE

S = TypeVar("S")

app = typer.Typer(
    name="xdserve",
    help="An Envoy xDS management server that gives every inference service a light gateway of its own.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Not by rich: it takes `[demo]` and `[default: ...]` for markup, and cuts long names of flags at 80 columns.
    rich_markup_mode=None,
)


class Report(StrEnum):
    """The form in which findings and differences are printed."""

    TEXT = "text"
    JSON = "json"


class Output(StrEnum):
    """The form in which resources are printed."""

    YAML = "yaml"
    JSON = "json"


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib import metadata

        _print(f"xdserve {metadata.version('xdserve')}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        commands = "serve, translate, validate, diff, bootstrap, router or demo"
        _say(f"a command is missing: {commands} (xdserve --help tells more)")
        raise typer.Exit(USAGE)


@app.command(short_help="Serve what a directory or a cluster holds to Envoys.")
def serve(
    source: flags.Source = None,
    kubeconfig: flags.Kubeconfig = None,
    namespaces: flags.Namespaces = None,
    selector: flags.Selector = None,
    provision: flags.Provision = None,
    gateway_image: flags.GatewayImage = None,
    router_image: flags.RouterImage = None,
    gateway_pull_secrets: flags.GatewayPullSecrets = None,
    gateway_pods: flags.GatewayPods = None,
    gateway_xds_address: flags.GatewayXdsAddress = None,
    gateway_address: flags.GatewayAddress = None,
    gateway_ca_file: flags.GatewayCaFile = None,
    kserve_config_map: flags.KserveConfigMap = None,
    gateway_replicas: flags.GatewayReplicas = None,
    release: flags.Release = None,
    xds_address: flags.XdsAddress = None,
    xds_cert: flags.XdsCert = None,
    xds_key: flags.XdsKey = None,
    xds_ca: flags.XdsCa = None,
    xds_client_ca: flags.XdsClientCa = None,
    xds_tokens: flags.XdsTokens = None,
    trust_domain: flags.TrustDomain = None,
    allow_plaintext: flags.AllowPlaintext = None,
    allow_anonymous: flags.AllowAnonymous = None,
    admin_address: flags.AdminAddress = None,
    domain: Domain = None,
    domain_template: flags.DomainTemplate = None,
    path_template: flags.PathTemplate = None,
    url_scheme: flags.UrlScheme = None,
    cluster_domain: flags.ClusterDomain = None,
    allowed_hosts: AllowedHosts = None,
    name_backends_in_errors: NameBackends = None,
    trusted_hops: TrustedHops = None,
    linger: flags.Linger = None,
    patience: flags.Patience = None,
    admission_rate: flags.AdmissionRate = None,
    connection_age: flags.ConnectionAge = None,
    drain: flags.Drain = None,
    last_good: flags.LastGood = None,
    state_directory: flags.StateDirectory = None,
    log_level: flags.LogLevel = None,
    log_format: flags.LogFormat = None,
    config: Config = None,
) -> None:
    """Read objects from a directory or a cluster, watch them, and serve each gateway's resources to its Envoys."""
    given = {name: value for name, value in locals().items() if name != "config"}
    raise typer.Exit(_serve(_settings(given, config)))


def _serve(settings: Settings) -> int:
    import asyncio

    from xdserve import log

    if settings.source is None:
        _say("--source: not given, allowed a directory or kubernetes (also XDSERVE_SOURCE, or in the file of settings)")
        raise typer.Exit(USAGE)
    if settings.last_good and settings.state_path is None:
        _say("--state-directory: not given, allowed a directory (there is no home directory), or --no-last-good")
        raise typer.Exit(USAGE)
    log.configure(settings.log_level, settings.log_format)

    # What speaks to Kubernetes is 46 MB that a directory does not need.
    if isinstance(settings.source, Path):
        from xdserve.app import serve as run
    else:
        from xdserve.kube.program import serve as run

    return asyncio.run(run(settings))


@app.command(short_help="Print the resources that Envoys would get.")
def translate(
    paths: Annotated[list[Path], typer.Argument(help="Files and directories of objects.", metavar="PATH...")],
    gateway: Annotated[str | None, flag("Print this gateway alone.", "NS/NAME", None)] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="Form of the output.", metavar="yaml|json")
    ] = Output.YAML,
    domain: Domain = None,
    allowed_hosts: AllowedHosts = None,
    name_backends_in_errors: NameBackends = None,
    trusted_hops: TrustedHops = None,
    config: Config = None,
) -> None:
    """Print the resources that Envoys would get, without serving them; findings go to stderr, one a line.

    Prints a map of gateways to clusters, endpoints, listeners and routes, as Envoy's own configuration has them.
    """
    given = locals()
    if gateway is not None:
        _check_gateway(gateway)
    _check_paths("PATH", *paths)
    options = _options(given)

    from xdserve.offline import display
    from xdserve.offline import translate as run

    result = run(paths, gateway, options)
    _print(display.serialized(result.resources, as_json=output is Output.JSON))
    for finding in result.findings:
        print(finding, file=sys.stderr)
    raise typer.Exit(int(not result.well))


@app.command(short_help="Say all that is wrong with objects at once.")
def validate(
    paths: Annotated[
        list[Path], typer.Argument(help="Files and directories of objects; - is standard input.", metavar="PATH...")
    ],
    context: Annotated[
        list[Path] | None, flag("Objects that are there too and are not asked about; may be repeated.", "PATH", None)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Take what only a cluster can know (Services, endpoints) for errors.")
    ] = False,
    envoy: Annotated[
        bool, typer.Option("--envoy", help="Have an Envoy check everything that translation gives.")
    ] = False,
    envoy_binary: Annotated[
        Path | None, flag("The Envoy to check with, rather than that of the extra demo or on PATH.", "FILE", None)
    ] = None,
    output: Annotated[
        Report, typer.Option("--output", "-o", help="Form of the output.", metavar="text|json")
    ] = Report.TEXT,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")] = False,
    domain: Domain = None,
    allowed_hosts: AllowedHosts = None,
    name_backends_in_errors: NameBackends = None,
    trusted_hops: TrustedHops = None,
    config: Config = None,
) -> None:
    """Say all that is wrong with objects at once, one line each: errors (exit code 1), then warnings, then notes.

    Notes are about Services and endpoints that controllers make in a cluster and of which nothing is in the files.
    """
    given = locals()
    _check_paths("PATH", *paths, *(context or ()), stdin=True)
    options = _options(given)

    from xdserve.demo.envoy import EnvoyNotFoundError, find
    from xdserve.offline.envoy import NotAnEnvoyError
    from xdserve.offline.validation import Request
    from xdserve.offline.validation import validate as run

    try:
        binary = find(envoy_binary) if envoy or envoy_binary else None
        result = run(
            Request(paths=tuple(paths), context=tuple(context or ()), options=options, strict=strict, envoy=binary)
        )
    except (EnvoyNotFoundError, NotAnEnvoyError) as error:
        _say(f"--envoy: {error}")
        raise typer.Exit(USAGE) from None
    raise typer.Exit(_print_findings(result, output, quiet))


def _print_findings(result: Validated, output: Report, quiet: bool) -> int:
    from xdserve.offline import display
    from xdserve.offline.findings import Severity

    if output is Report.JSON:
        shown = [said for said in result.said if not quiet or said.severity is Severity.ERROR]
        _print(display.as_json(display.findings_data(shown)))
    else:
        _print(display.as_text(display.validated(result, quiet=quiet)))
    return int(result.count(Severity.ERROR) > 0)


@app.command(short_help="Say what a change of objects would send to Envoys.")
def diff(
    old: Annotated[Path, typer.Argument(help="A file or directory of objects; - is standard input.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="The same after a change; - is standard input.", metavar="NEW")],
    context: Annotated[
        list[Path] | None, flag("Objects that are there too, before and after; may be repeated.", "PATH", None)
    ] = None,
    output: Annotated[
        Report, typer.Option("--output", "-o", help="Form of the output.", metavar="text|json")
    ] = Report.TEXT,
    domain: Domain = None,
    allowed_hosts: AllowedHosts = None,
    name_backends_in_errors: NameBackends = None,
    trusted_hops: TrustedHops = None,
    config: Config = None,
) -> None:
    """Say what a change of objects would send to the Envoys of each gateway; exit code 1 if there is a difference."""
    given = locals()
    _check_paths("OLD", old, stdin=True)
    _check_paths("NEW", new, stdin=True)
    _check_paths("--context", *(context or ()))
    if str(old) == str(new) == "-":
        _wrong("NEW", "-", "standard input once")
    options = _options(given)

    from xdserve.offline import display
    from xdserve.offline.comparison import compare
    from xdserve.sources.tree import SourceUnavailable

    try:
        result = compare(old, new, options, context or ())
    except SourceUnavailable as error:
        _say(str(error))
        raise typer.Exit(USAGE) from None
    if output is Report.JSON:
        _print(display.as_json(display.comparison_data(result)))
    else:
        _print(display.as_text(display.compared(result)))
    raise typer.Exit(int(bool(result)))


@app.command(short_help="Print the bootstrap configuration of a stock Envoy.")
def bootstrap(
    gateway: Annotated[str, flag("The gateway that the Envoy serves.", "NS/NAME", None)],
    xds_address: Annotated[
        list[str], flag("Where the Envoy finds xdserve; may be repeated, for replicas.", "HOST:PORT", None)
    ],
    ca: Annotated[Path | None, flag("Authorities of the server's certificate (PEM): use TLS.", "FILE", None)] = None,
    server_name: Annotated[
        str | None, flag("Name in the server's certificate [default: a host of --xds-address].", "NAME", None)
    ] = None,
    cert: Annotated[Path | None, flag("The Envoy's own certificate (PEM), for mutual TLS.", "FILE", None)] = None,
    key: Annotated[Path | None, flag("Private key of --cert (PEM).", "FILE", None)] = None,
    token_file: Annotated[Path | None, flag("The Envoy's bearer token, alone in a file.", "FILE", None)] = None,
    directory: Annotated[
        Path | None, flag("Write envoy.yaml (or .json) and what it names here, rather than print.", "DIR", None)
    ] = None,
    node_id: Annotated[
        str | None, flag("Name of this Envoy among those of its gateway [default: NS/NAME/HOSTNAME].", "ID", None)
    ] = None,
    admin_address: Annotated[
        str | None, flag("Where the Envoy serves its admin interface [default: 127.0.0.1:9901].", "HOST:PORT", None)
    ] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="Form of the output.", metavar="yaml|json")
    ] = Output.YAML,
) -> None:
    """Print the bootstrap configuration of a stock Envoy: `envoy --config-path FILE`.

    Credentials are files that Envoy reads again when they are replaced; that takes --directory.
    """
    import bootstrap as made

    _check_gateway(gateway)
    servers = [_server(text) for text in xds_address]
    admin = _address("--admin-address", admin_address or str(made.DEFAULT_ADMIN))
    files = {"ca": ca, "cert": cert, "key": key, "token_file": token_file, "directory": directory}
    try:
        paths = {name: path.absolute() for name, path in files.items() if path is not None}
        credentials = made.Credentials(server_name=server_name, **paths)
        content = made.render(gateway, servers, credentials=credentials, node_id=node_id, admin_address=admin)
    except made.CredentialsError as error:
        _wrong("--" + error.field.replace("_", "-"), server_name if error.field == "server_name" else None, str(error))
    except ValueError as error:
        _wrong("--node-id", node_id or made.default_node_id(gateway), str(error))
    text = made.to_yaml(content) if output is Output.YAML else made.to_json(content)
    if directory is None:
        _print(text)
        return
    secrets = {name: made.to_yaml(secret) for name, secret in made.secrets(credentials, servers).items()}
    _write(directory, {**secrets, f"envoy.{output}": text})


@app.command(short_help="Serve the Router API in front of a model.")
def router() -> None:
    """Serve the Router API in front of a model; its settings are plain environment variables, as MODEL_REF and PORT."""
    from xdserve.router.settings import load

    settings = _loaded(load)

    from xdserve.router.server import run

    raise typer.Exit(run(settings))


@app.command(short_help="See gateways edited, broken and killed while traffic goes on.")
def demo(
    plain: Annotated[bool, typer.Option("--plain", help="Print lines only, no live display.")] = False,
    seconds: Annotated[float, typer.Option(help="Least time of a step.", metavar="N")] = 5.0,
    json: Annotated[Path | None, flag("Write the figures to this file.", "FILE", None)] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running at the end, and print addresses to try.")
    ] = False,
    envoy: Annotated[Path | None, flag("An Envoy other than the one of xdserve[demo].", "FILE", None)] = None,
    scenario: Annotated[str | None, flag(f"Play one step alone: {', '.join(SCENARIOS)}.", "NAME", None)] = None,
) -> None:
    """Edit, break and kill what runs behind three stock Envoys while traffic goes on, and measure what users get."""
    if not 0.1 <= seconds <= 600:
        _wrong("--seconds", str(seconds), "0.1..600")
    if scenario is not None and scenario not in SCENARIOS:
        _wrong("--scenario", scenario, ", ".join(SCENARIOS))

    from xdserve.demo import Options, run

    options = Options(plain=plain, seconds=seconds, json=json, keep=keep, envoy=envoy, scenario=scenario)
    raise typer.Exit(run(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and give its exit code; never a traceback for what a user can get wrong."""
    if not sys.stdout:  # closed by whoever started it
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _mute()
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="xdserve", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except TyperException as error:
        _say(error.format_message().replace("Value error, ", ""))
        return error.exit_code
    return int(code or 0)


def _settings(given: Mapping[str, Any], config: Path | None) -> Settings:
    from xdserve.settings import load

    return _loaded(lambda: load(given, config))


def _options(given: Mapping[str, Any]) -> Options:
    """The operator's settings that planning depends on, out of what a command was given."""
    from xdserve import log
    from xdserve.settings import LogLevel as Level

    names = ("domain", "allowed_hosts", "name_backends_in_errors", "trusted_hops")
    settings = _settings({name: given[name] for name in names}, given["config"])
    log.configure(Level.WARNING, settings.log_format)

    from xdserve.app import options_of

    return options_of(settings)


def _check_paths(where: str, *paths: Path, stdin: bool = False) -> None:
    for path in paths:
        if not (stdin and str(path) == "-") and not path.exists():
            _wrong(where, str(path), "a file or directory that exists")


def _loaded(load: Callable[[], S]) -> S:
    from xdserve.settings import SettingsError

    try:
        return load()
    except SettingsError as error:
        for line in error.lines:
            _say(line)
        raise typer.Exit(USAGE) from None


def _check_gateway(gateway: str) -> None:
    from bootstrap import check_gateway

    try:
        check_gateway(gateway)
    except ValueError as error:
        _wrong("--gateway", gateway, str(error))


def _server(text: str) -> Address:
    address = _address("--xds-address", text)
    if address.port == 0:
        _wrong("--xds-address", text, "a port 1..65535")
    return address


def _address(where: str, text: str) -> Address:
    from bootstrap import Address

    try:
        return Address.parse(text)
    except ValueError as error:
        _wrong(where, text, str(error))


def _write(directory: Path, files: Mapping[str, str]) -> None:
    """Replace each file as a whole: an Envoy may be watching them."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            new = directory / f".{name}.new"
            new.write_text(text)
            new.replace(directory / name)
    except OSError as error:
        _wrong("--directory", str(directory), f"a directory that can be written to ({error.strerror})")


def _wrong(where: str, found: str | None, allowed: str) -> NoReturn:
    _say(f"{where}: {'not given' if found is None else f'found {found!r}'}, allowed {allowed}")
    raise typer.Exit(USAGE)


def _say(line: str) -> None:
    print(f"xdserve: {line}", file=sys.stderr)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(_mute()) from None
    except OSError as error:
        _mute()
        _say(f"standard output: {error.strerror}")
        raise typer.Exit(USAGE) from None


def _mute() -> int:
    """Let nothing more be written to a pipe that nobody reads, also not when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
