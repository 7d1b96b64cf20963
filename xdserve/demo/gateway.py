"""One gateway of the demo: a stock Envoy, what is asked of it, and the files whose edits it follows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from xdserve.demo import envoy
from xdserve.demo.driver import Answer, LostError, Traffic, connect, post
from xdserve.demo.files import EditedFile
from xdserve.demo.models import HOST
from xdserve.demo.processes import Children
from xdserve.demo.waiting import until

INSTANCES = b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'
_PAUSE = 0.002


@dataclass(slots=True, kw_only=True)
class Gateway:
    """A gateway `models/<service>` and its Envoy, which may be killed and restarted."""

    service: str
    port: int
    launch: envoy.Launch
    envoy: envoy.Envoy
    children: Children

    @property
    def name(self) -> str:
        """As xdserve has it."""
        return f"models/{self.service}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def path(self) -> str:
        """Where predictions are asked for."""
        return f"/v1/models/{self.service}:predict"

    def host(self, component: str = "") -> str:
        """The service's host, or that of one of its components."""
        part = f"-{component}" if component else ""
        return f"{self.service}{part}-models.example.com"

    def request(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        path: str | None = None,
        body: bytes = INSTANCES,
        component: str = "",
    ) -> bytes:
        """One request, by default for a prediction."""
        return post(self.host(component), path or self.path, body, headers)

    def traffic(self, request: bytes | None = None, connections: int = 8) -> Traffic:
        """Requests again and again; the pause leaves room for what is measured beside them."""
        return Traffic(HOST, self.port, request or self.request(), connections=connections, pause=_PAUSE)

    async def ask(self) -> Answer | None:
        """One answer over a new connection, if there is one."""
        try:
            connection = await connect(HOST, self.port)
        except OSError:
            return None
        try:
            return await connection.ask(self.request())
        except LostError:
            return None
        finally:
            connection.close()

    async def serving(self) -> bool:
        """Whether a prediction is answered well."""
        answer = await self.ask()
        return answer is not None and answer.status == 200

    async def edit(self, file: EditedFile, text: str, kind: str = "route_configs") -> None:
        """Replace a file, unless it has that text, and wait until Envoy has other resources of `kind`.

        Routes are what Envoy gets last: with them it has all.
        """
        if file.has(text):
            return
        before = await self.envoy.versions(kind)

        async def changed() -> bool:
            self.children.check()
            return await self.envoy.versions(kind) != before

        file.replace(text)
        await until(changed, f"the Envoy of {self.name} to have what the edited file says")

    async def restart(self) -> float:
        """Kill the Envoy, start it again; seconds from its start to its first good answer."""
        self.children.kill(self.envoy.child)
        started = time.perf_counter()
        self.envoy = envoy.start(self.children, self.launch)
        await until(self.serving, f"the restarted Envoy of {self.name} to answer", 20.0)
        return time.perf_counter() - started
