"""`xdserve serve` as its user runs it: a child process on a directory, looked at through its admin endpoints."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import Children, clean_environment, free_ports
from tests.support.wait import wait_until

HOST = "127.0.0.1"


class Serve:
    """A program that can be started again and again on the same directory and ports.

    `folder` has the directory `objects` and the logs; use as a context, which ends what runs.
    """

    def __init__(self, folder, *flags):
        self.objects = folder / "objects"
        self.objects.mkdir()
        self.xds, self.admin = free_ports(2)
        self.child = None
        self._flags = ("--state-directory", str(folder / "state"), "--drain", "0.5", *flags)
        self._children = Children(folder)
        self._starts = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._children.__exit__(*error)

    @property
    def port(self):
        """Where Envoys connect."""
        return self.xds

    def start(self, *flags):
        """Start it; the log of each start is a file of its own."""
        self._starts += 1
        command = [sys.executable, "-m", "xdserve", "serve", "--source", str(self.objects)]
        command += ["--xds-address", f"{HOST}:{self.xds}", "--admin-address", f"{HOST}:{self.admin}"]
        name = f"xdserve-{self._starts}"
        self.child = self._children.start(name, [*command, *self._flags, *flags], env=clean_environment())
        return self.child

    async def started(self, *flags):
        """Start it and wait until it is ready."""
        self.start(*flags)
        await self.wait_ready()

    async def wait_ready(self):
        await wait_until(self.ready, 30, "xdserve to be ready")

    async def ready(self):
        self.child.check()
        return (await self.get("/readyz"))[0] == 200

    async def get(self, path):
        """Status and text of an admin endpoint; status 0 while nobody listens."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{self.admin}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def json(self, path):
        status, text = await self.get(path)
        assert status == 200, (path, status, text)
        return json.loads(text)

    async def errors(self):
        return await self.json("/debug/errors")

    async def conditions(self, name):
        """The conditions of an object by type, as (status, reason)."""
        found = {entry["object"]: entry["conditions"] for entry in await self.json("/debug/status")}
        return {one["type"]: (one["status"], one["reason"]) for one in found.get(name, [])}

    async def programmed(self, name="TrafficPolicy models/iris"):
        """Whether all Envoys of the object's gateway have all that it is to have."""
        conditions = await self.conditions(name)
        return any(reason == "Programmed" for _, reason in conditions.values())

    async def versions(self, gateway="models/iris"):
        """Version by section and name of what a gateway is to have."""
        found = await self.json(f"/debug/resources?gateway={gateway}")
        return {(section, one["name"]): one["version"] for section, listed in found.items() for one in listed}

    async def metric(self, name):
        """The samples of a metric that are not 0, by their labels' values (joined), or of one without labels."""
        _, text = await self.get("/metrics")
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples if sample.name == f"xdserve_{name}"]
        assert samples, name
        return {",".join(sample.labels.values()): int(sample.value) for sample in samples if sample.value}

    def log(self):
        """The lines of the running start's log, each an object."""
        return [json.loads(line) for line in self.child.log.read_text().splitlines()]

    def write(self, file, *documents):
        """Put a file of documents in place by a rename."""
        self.write_text(file, "---\n".join(yaml.safe_dump(document, sort_keys=False) for document in documents))

    def write_text(self, file, text):
        path = self.objects / file
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(f"{path.parent}/.{path.name}.new")
        new.write_text(text)
        new.replace(path)

    def kill(self):
        """End it at once, as a crash or the kernel does."""
        assert self.child.kill() == -signal.SIGKILL
