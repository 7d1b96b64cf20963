"""kubectl as a person at a terminal uses it: every command is shown, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import time
from datetime import datetime
from typing import NamedTuple

from rich.text import Text

from tests.support.kube_binaries import kubectl_binary

_NAMESPACE = ("-n", "models")
_MOST_LINES = 12
# As klog writes it: month, day, time of day in microseconds; then what was asked.
_ANSWERED = re.compile(r'^I(\d{4} [\d:.]+) .*verb="PATCH".*status="200', re.MULTILINE)


class KubectlError(Exception):
    """kubectl was refused; the text is what it said."""


class Said(NamedTuple):
    """Exit status, standard output and standard error of a command, and when it began (perf_counter)."""

    status: int
    out: str
    err: str
    begun: float

    @property
    def answered(self):
        """When the apiserver had answered a PATCH (perf_counter): by the log of kubectl with `-v=6`."""
        found = _ANSWERED.search(self.err)
        if found is None:
            raise KubectlError(f"no answer to a PATCH in what kubectl says: {self.err[-300:]}")
        year, zone = time.strftime("%Y %z").split()  # klog writes local time, and neither of them
        at = datetime.strptime(f"{year} {found[1]} {zone}", "%Y %m%d %H:%M:%S.%f %z")
        return at.timestamp() - (time.time() - time.perf_counter())


class Screen:
    """Commands and what they say, above whatever a reporter draws."""

    def __init__(self, console):
        self._console = console

    def heading(self, text):
        self._print(f"\n{text}", "bold underline")

    def command(self, *words):
        self._print(f"$ {shlex.join(words)}", "bold")

    def output(self, text):
        """The lines of `text`, not too many."""
        lines = text.rstrip().splitlines()
        for line in lines[:_MOST_LINES]:
            self._print(f"  {line}", "dim")
        if len(lines) > _MOST_LINES:
            self._print(f"  ... {len(lines) - _MOST_LINES} lines more", "dim")

    def plain(self, text):
        self._print(text, "")

    def note(self, text):
        self._print(f"# {text}", "italic")

    def _print(self, text, style):
        # A style of the print itself would be that of the bars below too.
        self._console.print(Text(text, style), soft_wrap=True)


class Kubectl:
    """Runs commands in `folder` as who has `kubeconfig`."""

    def __init__(self, kubeconfig, folder, screen):
        self.screen = screen
        self._folder = folder
        caches = {"KUBECACHEDIR": str(folder / "kubectl-cache"), "KUBECTL_KUBERC": "false"}
        self._environment = os.environ | {"KUBECONFIG": str(kubeconfig)} | caches

    async def __call__(self, *words, quiet=False):
        """Show a command and run it; `quiet`: do neither show it nor what it says. Raises KubectlError."""
        said = await self.attempt(*words, quiet=quiet)
        if said.status:
            raise KubectlError(f"kubectl {shlex.join(words)}: {said.err.strip()}")
        return said

    async def attempt(self, *words, quiet=False):
        """The same, also of a command that fails."""
        if not quiet:
            self.screen.command("kubectl", *words)
        said = await self._run(words)
        if not quiet:
            self.screen.output(said.out or said.err)
        return said

    async def models(self, *words, quiet=False):
        """A command about objects of the namespace `models`."""
        return await self(*_NAMESPACE, *words, quiet=quiet)

    async def patch(self, kind, name, spec, *, quiet=False):
        """A merge patch of a spec; its log tells when it was answered."""
        patch = json.dumps({"spec": spec}, separators=(",", ":"))
        words = (*_NAMESPACE, "patch", kind, name, "--type=merge", "-p", patch, "-v=6")
        if not quiet:
            self.screen.command("kubectl", *words[:-1])
        said = await self._run(words)
        if said.status:
            raise KubectlError(said.err.strip().splitlines()[-1])
        if not quiet:
            self.screen.output(said.out)
        return said

    async def _run(self, words):
        begun = time.perf_counter()
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            str(kubectl_binary()), *words, cwd=self._folder, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        )  # fmt: skip
        try:
            out, err = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        return Said(child.returncode, out.decode(), err.decode(), begun)
