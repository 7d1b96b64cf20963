"""A gateway's pod without Kubernetes: `with Pod(folder, manifests, token=...) as pod` does what a kubelet would.

It mounts the ConfigMap and the token (behind the link `..data`, which is swapped), runs the container's command with
its arguments and environment, probes as the manifest says, and ends it as it says: preStop, SIGTERM, the grace period.
What differs: mounts are below `folder`; and without a `network` of its own (`tests.support.podnet`) the ports that only
the pod uses are others, since pods share an address then.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from contextlib import nullcontext
from pathlib import Path

import aiohttp
import yaml

from tests.support.envoy import Envoy, envoy_binary
from tests.support.processes import Children, clean_environment, free_ports
from tests.support.wait import wait_until

PROBE, ADMIN = 15021, 9901
_LATE = 30
"""Seconds that a machine with other work may be late."""


class Pod:
    """One pod of a Deployment among `manifests` (plain data, also as an apiserver gives them)."""

    def __init__(self, folder, manifests, *, token, name="pod-1", network=None):
        self.name, self.token, self._network = name, token, network
        self.host = network.address if network else "127.0.0.1"
        self.folder = folder / name
        self.folder.mkdir()
        self.probe_port, self.admin_port = (PROBE, ADMIN) if network else free_ports(2)
        self.envoy = None
        self._children = Children(self.folder)
        self.update(manifests)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._children.__exit__(*error)

    def update(self, manifests):
        """Take other manifests: files that changed are swapped; the process stays as it is."""
        by_kind = {one["kind"]: one for one in manifests}
        self.spec = by_kind["Deployment"]["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        self._config = by_kind["ConfigMap"]["data"]
        self._mounts = {
            mount["name"]: (mount["mountPath"], self.folder / mount["name"]) for mount in self.container["volumeMounts"]
        }
        for volume in self.spec["volumes"]:
            self._mount(volume["name"], self._files_of(volume))

    def renew(self, token):
        """Put another token in place of the one that is there."""
        self.token = token
        (volume,) = [one for one in self.spec["volumes"] if "projected" in one]
        self._mount(volume["name"], self._files_of(volume))

    @property
    def audience(self):
        """Whom the token has to be for."""
        (volume,) = [one for one in self.spec["volumes"] if "projected" in one]
        return volume["projected"]["sources"][0]["serviceAccountToken"]["audience"]

    def start(self):
        """Run the container and do not wait; the Envoy."""
        environment = {one["name"]: self._value(one) for one in self.container["env"]}
        arguments = [self._expanded(one, environment) for one in self.container["args"]]
        assert self.container["command"] == ["envoy"]
        command = [str(envoy_binary()), *map(self._local, arguments)]
        with self._network.entered() if self._network else nullcontext():
            child = self._children.start("envoy", command, env=clean_environment(**environment))
        self.envoy = Envoy(child, f"127.0.0.1:{self.admin_port}")
        return self.envoy

    async def started(self):
        """Run the container and wait until its readiness probe succeeds."""
        self.start()
        await self.wait_ready()
        return self

    async def wait_ready(self, seconds=30):
        await wait_until(self.ready, seconds, f"{self.name} to be ready")

    async def ready(self):
        self.envoy.child.check()
        return await self.probe("readinessProbe")

    async def probe(self, kind):
        """Whether a probe succeeds."""
        status = await self._get(self.container[kind]["httpGet"], self.container[kind]["timeoutSeconds"])
        return status is not None and 200 <= status < 400

    async def stop(self):
        """End it as a kubelet does: preStop, then SIGTERM, all within the grace period; whether it ended by itself."""
        grace = self.spec["terminationGracePeriodSeconds"]
        child = self.envoy.child
        async with asyncio.timeout(grace + _LATE):
            hook = self.container["lifecycle"]["preStop"]["httpGet"]
            await self._get(hook, grace)
            os.killpg(child.pid, signal.SIGTERM)
            await wait_until(lambda: not child.running, _LATE, f"{self.name} to end")
        return child.process.returncode

    async def _get(self, action, seconds):
        """Status of an `httpGet` of the kubelet; None if there is no answer in time."""
        assert action["port"] == PROBE
        headers = {one["name"]: one["value"] for one in action.get("httpHeaders", ())}
        url = f"http://{self.host}:{self.probe_port}{action['path']}"
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=headers) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _files_of(self, volume):
        if "configMap" in volume:
            return {name: self._own(name, text) for name, text in self._config.items()}
        (source,) = volume["projected"]["sources"]
        return {source["serviceAccountToken"]["path"]: self.token}

    def _own(self, name, text):
        """A file of the ConfigMap with this pod's paths, and with ports of its own."""
        if not name.endswith((".yaml", ".json")):
            return text
        return json.dumps(self._ported(yaml.safe_load(self._local(text))))

    def _ported(self, value):
        ports = {PROBE: self.probe_port, ADMIN: self.admin_port}
        match value:
            case dict():
                return {
                    key: ports.get(one, one) if key == "port_value" else self._ported(one) for key, one in value.items()
                }
            case list():
                return [self._ported(one) for one in value]
        return value

    def _local(self, text):
        for path, folder in self._mounts.values():
            text = text.replace(path, str(folder))
        return text

    def _value(self, variable):
        if "value" in variable:
            return variable["value"]
        assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
        return self.name

    def _expanded(self, text, environment):
        for name, value in environment.items():
            text = text.replace(f"$({name})", value)
        return text

    def _mount(self, volume, files):
        mount(self._mounts[volume][1], files)


def mount(folder, files):
    """Put files into a folder as a kubelet does; those that are the same stay."""
    data = folder / "..data"
    if data.exists() and {path.name: path.read_text() for path in data.iterdir()} == files:
        return
    folder.mkdir(exist_ok=True)
    real = folder / f"..{len(list(folder.iterdir()))}"
    real.mkdir()
    for name, content in files.items():
        (real / name).write_text(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..new").symlink_to(real.name)
    (folder / "..new").rename(data)


class Service:
    """Leads each new connection to one of the pods in `port_of`, as a Service does; those that are there stay."""

    def __init__(self):
        self.port_of = {}
        self.port = 0
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        for writer in self._writers:
            writer.close()
        await wait_until(lambda: not self._writers)

    async def _serve(self, reader, writer):
        pod_reader, pod_writer = await asyncio.open_connection("127.0.0.1", random.choice(list(self.port_of.values())))
        both = {writer, pod_writer}
        self._writers |= both
        await asyncio.gather(_copy(reader, pod_writer), _copy(pod_reader, writer))
        self._writers -= both


async def _copy(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
