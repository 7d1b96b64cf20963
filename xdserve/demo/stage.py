"""What the demo plays on: two model servers, xdserve on a copy of the examples, and a stock Envoy, all children."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from xdserve.demo import envoy
from xdserve.demo.driver import Answer, LostError, Traffic, connect, post
from xdserve.demo.processes import Child, ChildError, Children, free_ports, wait_for_line
from xdserve.demo.waiting import until

HOST = "127.0.0.1"
GATEWAY = "models/iris"
PATH = "/v1/models/iris:predict"
BODY = b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'
_AUTHORITY = "iris-models.example.com"
_PORTS_IN_EXAMPLES = {"stable": 9001, "v2": 9002, "gateway": 8080}
_START_SECONDS = 30.0


class PolicyFile:
    """The TrafficPolicy that the demo edits, as a user would: its text changed, the file replaced at once."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.good = path.read_text()

    def replace(self, text: str) -> float:
        """Put `text` in place by a rename and say when that was (perf_counter)."""
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(text)
        at = time.perf_counter()
        new.replace(self.path)
        return at

    def split(self, stable: int, v2: int) -> str:
        """The good text with these weights, which is the good text from now on."""
        text = re.sub(r"(backend: stable, weight: )\d+", rf"\g<1>{stable}", self.good)
        head, rules, tail = text.partition("\n  rules:")
        self.good = re.sub(r"(backend: v2, weight: )\d+", rf"\g<1>{v2}", head) + rules + tail
        return self.good

    def sticky(self) -> str:
        """The good text with a sticky cookie; what counts as good stays."""
        return self.good.replace("\n  rules:", "\n  sticky: {by: Cookie, name: xdserve, ttl: 1h}\n  rules:")


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs, and where."""

    children: Children
    envoy: envoy.Envoy
    policy: PolicyFile
    gateway_port: int
    admin: str
    folder: Path

    def traffic(self, headers: dict[str, str] | None = None, connections: int = 8) -> Traffic:
        """Requests to the gateway; the pause leaves room for what is measured beside them."""
        return Traffic(HOST, self.gateway_port, self.request(headers), connections=connections, pause=0.002)

    def request(self, headers: dict[str, str] | None = None) -> bytes:
        """One prediction asked of the gateway."""
        return post(_AUTHORITY, PATH, BODY, headers)

    async def ask(self) -> Answer | None:
        """One answer over a new connection, if there is one."""
        try:
            connection = await connect(HOST, self.gateway_port)
        except OSError:
            return None
        try:
            return await connection.ask(self.request())
        except LostError:
            return None
        finally:
            connection.close()

    async def errors(self) -> list[dict[str, Any]]:
        """What xdserve's `/debug/errors` lists now."""
        url = f"http://{self.admin}/debug/errors"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            found: list[dict[str, Any]] = json.loads(await response.text())
        return found

    async def edit(self, text: str) -> None:
        """Replace the policy, and wait until Envoy has another route configuration."""
        before = await self.envoy.versions("route_configs")

        async def changed() -> bool:
            self.children.check()
            return await self.envoy.versions("route_configs") != before

        self.policy.replace(text)
        await until(changed, "Envoy to have the routes of the edited file")


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
            yield await _start(children, folder, binary)


async def _start(children: Children, folder: Path, binary: Path) -> Stage:
    gateway, xds_port, admin_port, envoy_admin_port = free_ports(4, HOST)
    models = {variant: _start_model(children, variant) for variant in ("stable", "v2")}
    ports = {variant: await asyncio.to_thread(_model_port, child) for variant, child in models.items()}
    _copy_examples(folder / "examples", ports | {"gateway": gateway})
    xds, admin, envoy_admin = (f"{HOST}:{port}" for port in (xds_port, admin_port, envoy_admin_port))
    serve = ["serve", "--source", str(folder / "examples"), "--xds-address", xds, "--admin-address", admin]
    server = children.start("xdserve", [sys.executable, "-m", "xdserve", *serve], env=_clean_environment())
    bootstrap = await _bootstrap(xds, envoy_admin)
    await _expect(server, "to be ready", lambda: _status(f"http://{admin}/readyz"), 200)
    running = envoy.start(children, envoy.Launch(binary=binary, bootstrap=bootstrap, admin=envoy_admin))
    await running.wait_ready()
    file = Path("iris") / "traffic-policy.yaml"
    policy = PolicyFile(folder / "examples" / file, str(file))
    stage = Stage(children, running, policy, gateway, admin, folder)
    await _expect(running.child, "to pass a request", lambda: _answered(stage), 200)
    return stage


def _start_model(children: Children, variant: str) -> Child:
    return children.start(
        f"model-{variant}", [sys.executable, "-m", "xdserve.demo.model", "--variant", variant, "--port", "0"]
    )


def _model_port(child: Child) -> int:
    return int(wait_for_line(child, "listening ").rpartition(":")[2])


def _copy_examples(target: Path, ports: dict[str, int]) -> None:
    """Copy the examples, with the real ports in the folder of the gateway that the demo runs."""
    shutil.copytree(_examples(), target)
    for file in (target / "iris").glob("*.yaml"):
        text = file.read_text()
        for name, written in _PORTS_IN_EXAMPLES.items():
            text = re.sub(rf"\bport: {written}\b", f"port: {ports[name]}", text)
        file.write_text(text)


def _examples() -> Path:
    """The examples: in the wheel beside this module, in a checkout at its root."""
    here = Path(__file__).resolve()
    places = [here.with_name("examples"), here.parents[2] / "examples"]
    for place in places:
        if (place / "iris").is_dir():
            return place
    raise ChildError(f"the examples are missing: looked for them in {' and '.join(map(str, places))}")


async def _bootstrap(xds: str, admin: str) -> str:
    """What `xdserve bootstrap` prints: the way a user gets it."""
    command = ["bootstrap", "--gateway", GATEWAY, "--xds-address", xds, "--admin-address", admin]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "xdserve", *command,
        env=_clean_environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode:
        raise ChildError(f"xdserve bootstrap ended with status {process.returncode}: {err.decode().strip()}")
    return out.decode()


async def _expect(child: Child, what: str, probe: Callable[[], Any], wanted: int) -> None:
    async def reached() -> bool:
        child.check()
        return bool(await probe() == wanted)

    try:
        await until(reached, what, _START_SECONDS, every=0.02)
    except TimeoutError as error:
        raise child.failure(f"took more than {_START_SECONDS:g} s {what}") from error


async def _answered(stage: Stage) -> int:
    answer = await stage.ask()
    return answer.status if answer else 0


async def _status(url: str) -> int:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status
    except aiohttp.ClientError:
        return 0


def _clean_environment() -> dict[str, str]:
    """This environment without the user's own settings of xdserve, which are not the demo's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("XDSERVE_")}
