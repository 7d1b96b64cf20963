"""The demo on Kubernetes from start to end."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext

from aiohttp import ClientError
from rich.console import Console

from tests.kube.demo import steps
from tests.kube.demo.keeping import keep
from tests.kube.demo.kubectl import KubectlError, Screen
from tests.kube.demo.stage import staged
from tests.support.kube import ApiError
from xdserve.demo.driver import LostError
from xdserve.demo.play import Play
from xdserve.demo.report import LiveReporter, PlainReporter, Step, table, write

_FILE_WIDTH = 120
BEFORE = {
    "chart installed": steps.installed,
    "kubectl apply": steps.applied,
    "Envoy as a kubelet": steps.served,
}
"""Each has to hold before there is any traffic."""
MEANWHILE = {
    "canary 90/10": steps.canary,
    "patched to 50/50": steps.patched,
    "patch to first answer": steps.latency,
    "header rule": steps.testers,
    "refused at once": steps.refused,
    "bad policy": steps.bad,
    "mended to 75/25": steps.mended,
    "KubeDL's Inference": steps.kubedl,
}
"""While traffic to iris goes on, of which no request is to fail."""
AFTER = {"iris deleted": steps.deleted}


async def play(options, ground):
    """Play all steps; 0 if all held, else 1. Raises what keeps it from being started."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    console = Console(color_system=None) if options.plain else Console()
    plain = options.plain or not console.is_terminal
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    reporter = PlainReporter(console) if plain else LiveReporter(console)
    screen = Screen(console)
    if ground.why:
        screen.note(f"a network of its own is {ground.why}; models run at this machine's address, {ground.address}")
    async with staged(ground, screen) as stage:
        screen.note(f"export KUBECONFIG={stage.apiserver.kubeconfig}; cd {stage.folder}")
        with nullcontext() if plain else reporter.live:
            done = await _steps(Play(stage=stage, reporter=reporter, seconds=options.seconds))
        console.print(table(done))
        if options.json:
            write(options.json, done, options.seconds)
        if options.keep:
            await keep(stage, screen)
    return 0 if all(step.held for step in done) else 1


async def _steps(play):
    done = await _some(play, BEFORE, all_needed=True)
    if not all(step.held for step in done):
        return done
    async with play.traffic.running():
        done += await _some(play, MEANWHILE)
    return done + await _some(play, AFTER)


async def _some(play, wanted, *, all_needed=False):
    """Play steps; with `all_needed` none after one that did not hold."""
    done = []
    for name, step in wanted.items():
        play.stage.kubectl.screen.heading(f"{name}: {step.__doc__}")
        done.append(await _guarded(play, name, step))
        play.reporter.done(done[-1])
        if all_needed and not done[-1].held:
            break
    return done


async def _guarded(play, name, step):
    """One step; what does not come in time makes it fail, not the demo."""
    if isinstance(play.reporter, LiveReporter):  # its bars are not to stay those of the step before
        play.reporter.begin(name, {}, play.traffic.count())
    try:
        return await step(play, name)
    except (TimeoutError, OSError, LostError, ClientError, KubectlError, ApiError) as error:
        play.stage.children.check()
        return Step(
            name=name, expected=step.__doc__, seen=str(error) or "nothing in time", held=False,
            requests=0, failed=play.traffic.failed, wanted={}, counts={},
        )  # fmt: skip
