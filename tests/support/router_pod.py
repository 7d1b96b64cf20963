"""A gateway's pod with the router beside its Envoy: `tests.support.pod.Pod`, and its second container."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import socket
import sys
from contextlib import nullcontext

from tests.support.pod import Pod
from tests.support.processes import clean_environment, free_ports
from tests.support.wait import wait_until
from translator.planners import router


def gateway_port():
    """A free port for a gateway whose router finds its own port free too.

    A low one: the router's is then below those that the kernel gives to outgoing connections.
    """
    return next(port for port in sorted(free_ports(100)) if _free(router.port(port)))


def _free(port):
    with socket.socket() as tried:
        try:
            tried.bind((router.LOOPBACK, port))
        except OSError:
            return False
        return True


class RouterPod(Pod):
    """One pod of a Deployment whose pods have two containers, `envoy` and `router`."""

    def update(self, manifests):
        """Take other manifests: the router's process stays as it is."""
        manifests = copy.deepcopy(manifests)
        (spec,) = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Deployment"]
        named = {one["name"]: one for one in spec["containers"]}
        self.router_container = named.pop("router")
        spec["containers"] = list(named.values())
        super().update(manifests)

    def start(self):
        """Run both containers and do not wait; the Envoy."""
        container = self.router_container
        assert (container["command"], container["args"]) == (["xdserve"], ["router"])
        environment = {one["name"]: self._value(one).replace("$$", "$") for one in container["env"]}
        command = [sys.executable, "-m", "xdserve", "router"]
        with self._network.entered() if self._network else nullcontext():
            self.router = self._children.start("router", command, env=clean_environment(**environment))
        return super().start()

    async def ready(self):
        self.router.check()
        probe = self.router_container["readinessProbe"]
        return await super().ready() and await self._get(probe["httpGet"], probe["timeoutSeconds"]) == 200

    async def stop(self):
        """End both as a kubelet does: their hooks at once, each SIGTERM after its own; the exit codes by container."""
        grace = self.spec["terminationGracePeriodSeconds"]
        containers = {"envoy": (self.container, self.envoy.child), "router": (self.router_container, self.router)}
        async with asyncio.timeout(grace + 10), asyncio.TaskGroup() as tasks:
            ends = {name: tasks.create_task(self._end(*each, grace)) for name, each in containers.items()}
        return {name: end.result() for name, end in ends.items()}

    async def _end(self, container, child, grace):
        await self._get(container["lifecycle"]["preStop"]["httpGet"], grace)
        os.killpg(child.pid, signal.SIGTERM)
        await wait_until(lambda: not child.running, 10, f"{container['name']} to end")
        return child.process.returncode
