"""What to try when the demo is left running."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal

from tests.support.kube_binaries import kubectl_binary
from xdserve.demo.gateway import INSTANCES

_WEIGHT = '[{"op":"replace","path":"/spec/predictors/0/trafficWeight","value":30}]'


async def keep(stage, screen):
    """Say what can be tried, and leave everything running until Ctrl-C."""
    screen.heading("Everything goes on running until Ctrl-C. To try, in another terminal:")
    for line in _lines(stage):
        screen.note(line) if line.startswith("(") else screen.plain(line)
    pressed, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, pressed.set)
    try:
        await pressed.wait()
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _lines(stage):
    mnist = stage.mnist
    if stage.ground.own:
        yield "(all of it is in a network of its own, which a shell has to enter first)"
        user = "--user --preserve-credentials " if stage.ground.own_user else ""
        yield f"nsenter --target {os.getpid()} {user}--net $SHELL"
    yield f"export KUBECONFIG={stage.apiserver.kubeconfig} PATH={kubectl_binary().parent}:$PATH"
    yield "kubectl -n models get inferences,trafficpolicy,servicegateway,deploy"
    yield f"curl -si -d {shlex.quote(INSTANCES.decode())} {mnist.url}{mnist.path}"
    yield f"kubectl -n models patch inference mnist --type=json -p {shlex.quote(_WEIGHT)}"
    yield "kubectl -n models edit trafficpolicy mnist"
    yield "kubectl -n models get events"
    yield f"curl -s http://{stage.admin}/debug/status?pretty"
