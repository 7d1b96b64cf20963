"""What the demo plays on: model servers, xdserve on a copy of the examples, a stock Envoy a gateway; all children."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import aiohttp

import bootstrap
from xdserve.demo import envoy, models
from xdserve.demo.files import EditedFile, PolicyFile
from xdserve.demo.gateway import Gateway
from xdserve.demo.models import HOST, MODELS, Model
from xdserve.demo.processes import Child, ChildError, Children, free_ports
from xdserve.demo.waiting import until

F = TypeVar("F", bound=EditedFile)

_GATEWAYS = {"iris": 8080, "mnist": 8081, "llm": 8082}
_START_SECONDS = 30.0
_PORT = re.compile(r"(?<=\bport: )\d+\b")


@dataclass(slots=True)
class Server:
    """xdserve as a child, which may be killed and restarted; `admin` is HOST:PORT."""

    children: Children
    command: list[str]
    admin: str
    child: Child

    @classmethod
    def start(cls, children: Children, source: Path, xds: str, admin: str) -> Server:
        """Start it; it is not waited for."""
        flags = ["serve", "--source", str(source), "--xds-address", xds, "--admin-address", admin]
        flags += ["--no-last-good", "--drain", "0.5"]
        command = [sys.executable, "-m", "xdserve", *flags]
        return cls(children, command, admin, _started(children, command))

    def kill(self) -> None:
        """End it at once."""
        self.children.kill(self.child)

    def again(self) -> None:
        """Start it as before; it is not waited for."""
        self.child = _started(self.children, self.command)

    async def wait_ready(self) -> None:
        """Wait until it has read the examples."""
        await _expect(self.child, "to be ready", lambda: _well(f"http://{self.admin}/readyz"))

    async def errors(self) -> list[dict[str, Any]]:
        """What `/debug/errors` lists now."""
        found: list[dict[str, Any]] = json.loads(await _text(f"http://{self.admin}/debug/errors"))
        return found

    async def metrics(self) -> dict[str, float]:
        """Every metric's sum over its labels, by name."""
        return await metrics_of(self.admin)


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs, and where. `ports` are the real ones by those that the examples have."""

    children: Children
    server: Server
    iris: Gateway
    mnist: Gateway
    llm: Gateway
    policy: PolicyFile
    llm_policy: EditedFile
    service: EditedFile
    ports: Mapping[int, int]

    @property
    def gateways(self) -> tuple[Gateway, ...]:
        """All of them."""
        return self.iris, self.mnist, self.llm

    async def router_metrics(self) -> dict[str, float]:
        """Those of the router in front of the language model."""
        return await metrics_of(f"{HOST}:{self.ports[models.ROUTER.port]}")


@asynccontextmanager
async def staged(binary: Path) -> AsyncIterator[Stage]:
    """Start everything, and end it when the block is left.

    Raises:
        ChildError: something did not start; the text has the end of its log.
    """
    with TemporaryDirectory(prefix="xdserve-demo-") as name:
        folder = Path(name)
        logs = folder / "logs"
        logs.mkdir()
        with Children(logs) as children:
            yield await _start(children, folder / "examples", binary)


async def _start(children: Children, source: Path, binary: Path) -> Stage:
    written = [*_GATEWAYS.values(), *(port for model in MODELS for port in model.ports())]
    found = free_ports(len(written) + len(_GATEWAYS) + 2, HOST)
    ports = dict(zip(written, found, strict=False))
    xds, admin, *admins = (f"{HOST}:{port}" for port in found[len(written) :])
    copy_examples(source, ports)
    server = Server.start(children, source, xds, admin)
    running = [(model, models.start(children, model, ports)) for model in MODELS]
    await server.wait_ready()  # an Envoy that comes earlier comes back only after a while
    gateways = {
        service: _gateway(children, binary, service, ports[port], (xds, own))
        for (service, port), own in zip(_GATEWAYS.items(), admins, strict=True)
    }
    await asyncio.gather(*(_model_ready(model, child, ports) for model, child in running))
    await asyncio.gather(*(_expect(one.envoy.child, "to pass a request", one.serving) for one in gateways.values()))
    return Stage(
        children, server, **gateways, ports=ports,
        policy=_edited(PolicyFile, source, "iris/traffic-policy.yaml"),
        llm_policy=_edited(EditedFile, source, "llm/traffic-policy.yaml"),
        service=_edited(EditedFile, source, "iris/iris.yaml"),
    )  # fmt: skip


def _edited(kind: type[F], source: Path, name: str) -> F:
    return kind(source / name, name)


def _gateway(children: Children, binary: Path, service: str, port: int, addresses: tuple[str, str]) -> Gateway:
    """Start the Envoy of one gateway; `addresses` are xdserve's and its own admin endpoint's."""
    xds, admin = addresses
    text = bootstrap.to_yaml(bootstrap.render(f"models/{service}", xds, admin_address=admin))
    launch = envoy.Launch(binary=binary, bootstrap=text, admin=admin, name=f"envoy-{service}")
    return Gateway(
        service=service, port=port, launch=launch, envoy=envoy.start(children, launch), children=children
    )  # fmt: skip


async def _model_ready(model: Model, child: Child, ports: Mapping[int, int]) -> None:
    await _expect(child, "to be ready", lambda: _well(f"http://{HOST}:{ports[model.port]}/readyz"))


def copy_examples(target: Path, ports: Mapping[int, int]) -> None:
    """Copy the examples with the real ports in place of those that they have."""
    shutil.copytree(_examples(), target)
    for file in target.rglob("*.yaml"):
        gateway = file.name == "gateway.yaml"  # elsewhere 8080 is the port of a Service
        here = {port: real for port, real in ports.items() if (port in _GATEWAYS.values()) is gateway}
        file.write_text(_PORT.sub(partial(_real, here), file.read_text()))


def _real(ports: Mapping[int, int], found: re.Match[str]) -> str:
    return str(ports.get(int(found[0]), found[0]))


def _examples() -> Path:
    """The examples: in the wheel beside this module, in a checkout at its root."""
    here = Path(__file__).resolve()
    places = [here.with_name("examples"), here.parents[2] / "examples"]
    for place in places:
        if (place / "iris").is_dir():
            return place
    raise ChildError(f"the examples are missing: looked for them in {' and '.join(map(str, places))}")


def _started(children: Children, command: list[str]) -> Child:
    """Start xdserve without the user's own settings, which are not the demo's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("XDSERVE_")}
    return children.start("xdserve", command, env=clean)


async def _expect(child: Child, what: str, probe: Callable[[], Awaitable[bool]]) -> None:
    async def reached() -> bool:
        child.check()
        return await probe()

    try:
        await until(reached, what, _START_SECONDS, every=0.05)
    except TimeoutError as error:
        raise child.failure(f"took more than {_START_SECONDS:g} s {what}") from error


async def _well(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def metrics_of(address: str) -> dict[str, float]:
    """The metrics that `HOST:PORT` serves, each summed over its labels."""
    sums: dict[str, float] = {}
    for line in (await _text(f"http://{address}/metrics")).splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums
