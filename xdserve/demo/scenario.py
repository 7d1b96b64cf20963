"""The demo from start to end: each step moves traffic by an edit of one file, and is held to figures."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

from aiohttp import ClientError
from rich.console import Console

from xdserve.demo import SCENARIOS, Options, faults, llm, protocols, steps
from xdserve.demo.driver import LostError
from xdserve.demo.envoy import EnvoyNotFoundError, find
from xdserve.demo.gateway import INSTANCES
from xdserve.demo.play import Play
from xdserve.demo.processes import ChildError
from xdserve.demo.report import LiveReporter, PlainReporter, Step, table, write
from xdserve.demo.stage import Stage, staged

_TERMINATED = 128 + signal.SIGTERM

STEPS: dict[str, tuple[str, Callable[[Play, str], Awaitable[Step]]]] = {
    "canary": ("canary 90/10", steps.canary),
    "move": ("edited to 50/50", steps.moved),
    "latency": ("edit to first answer", steps.latency),
    "tester": ("tester's header", steps.testers),
    "sticky": ("sticky cookie", steps.sticky),
    "broken-yaml": ("broken YAML", steps.broken_yaml),
    "bad-field": ("bad field", steps.bad_field),
    "mended": ("mended to 75/25", steps.mended),
    "protocols": ("protocols on one port", protocols.protocols),
    "transformer": ("transformer in front", protocols.transformer),
    "kubedl": ("KubeDL's rules", protocols.kubedl),
    "stream": ("streams through edits", llm.stream),
    "limit": ("router's limit", llm.limit),
    "envoy-killed": ("Envoy killed", faults.envoy_killed),
    "xdserve-killed": ("xdserve killed", faults.xdserve_killed),
}
"""Every step of `xdserve.demo.SCENARIOS`: its title, and what plays it."""


class CannotWriteError(Exception):
    """The file for the figures cannot be written."""


def play(options: Options) -> int:
    """Play the scenario; exit code as `xdserve.demo.run` says."""
    console = Console(color_system=None, width=120) if options.plain else Console()
    plain = options.plain or not console.is_terminal
    try:
        _check_writable(options.json)
        return asyncio.run(_play(options, console, plain=plain))
    except (EnvoyNotFoundError, ChildError, CannotWriteError) as error:
        sys.stderr.write(f"xdserve demo: {error}\n")
        return 2
    except asyncio.CancelledError:  # SIGTERM: all children have been stopped on the way here
        return _TERMINATED


def _check_writable(file: Path | None) -> None:
    """Say now, rather than after the run, that the figures cannot be written."""
    if file is None:
        return
    with _named(file):
        file.open("a").close()


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWriteError(f"{file}: {error.strerror}") from error


async def _play(options: Options, console: Console, *, plain: bool) -> int:
    _end_on_sigterm()
    reporter = PlainReporter(console) if plain else LiveReporter(console)
    async with staged(find(options.envoy)) as stage:
        with reporter.live if isinstance(reporter, LiveReporter) else nullcontext():
            names = SCENARIOS if options.scenario is None else (options.scenario,)
            done = await _steps(Play(stage=stage, reporter=reporter, seconds=options.seconds), names)
        console.print(table(done))
        if options.json is not None:
            with _named(options.json):
                write(options.json, done, options.seconds)
        if options.keep:
            await _keep(stage, console)
    return 0 if all(step.held for step in done) else 1


async def _steps(play: Play, names: Sequence[str]) -> list[Step]:
    done = []
    async with play.traffic.running():
        for name in names:
            done.append(await _guarded(play, *STEPS[name]))
            play.reporter.done(done[-1])
    return done


async def _guarded(play: Play, name: str, step: Callable[[Play, str], Awaitable[Step]]) -> Step:
    """One step; what does not come in time makes it fail, not the demo."""
    try:
        return await step(play, name)
    except (TimeoutError, OSError, LostError, ClientError) as error:
        play.stage.children.check()
        expected = (step.__doc__ or "").partition("\n")[0]
        return Step(
            name=name, expected=expected, seen=str(error) or "nothing in time",
            held=False, requests=0, failed=play.traffic.failed, wanted={}, counts={},
        )  # fmt: skip


def _end_on_sigterm() -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _keep(stage: Stage, console: Console) -> None:
    """Say what can be tried, and leave everything running until Ctrl-C."""
    iris, mnist, chat = stage.iris, stage.mnist, f"{stage.llm.url}/v1/chat/completions"
    instances, words = INSTANCES.decode(), '{"model": "llm", "messages": [{"role": "user", "content": "hello you"}]'
    console.print("\nEverything goes on running until Ctrl-C. To try:", markup=False)
    for line in (
        f"curl -si -d '{instances}' {iris.url}{iris.path}",
        f"curl -si -d '{instances}' -H 'x-tester: true' {iris.url}{iris.path}",
        f"curl -si -d '{instances}' -b beta=1 {mnist.url}{mnist.path}",
        f"""curl -sN -H 'content-type: application/json' -d '{words}, "stream": true}}' {chat}""",
        f"""curl -si -d '{{"prompt": "hello"}}' {stage.llm.url}/infer""",
        f"$EDITOR {stage.policy.path}",
        f"curl -s http://{stage.server.admin}/debug/errors",
        f"curl -s http://{stage.server.admin}/debug/nodes",
        *(f"curl -s http://{gateway.envoy.admin}/clusters" for gateway in stage.gateways),
    ):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    async with _ctrl_c() as pressed:
        await pressed.wait()


@asynccontextmanager
async def _ctrl_c() -> AsyncIterator[asyncio.Event]:
    """Ctrl-C as an event: here it is the way to end well, not an interruption."""
    pressed, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, pressed.set)
    try:
        yield pressed
    finally:
        loop.remove_signal_handler(signal.SIGINT)
