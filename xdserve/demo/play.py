"""What every step of the demo plays with, and how it measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdserve.demo import statistics
from xdserve.demo.driver import Tally, Traffic
from xdserve.demo.report import Reporter, Step, percent
from xdserve.demo.stage import Stage

REQUESTS = 2_000
"""Of a step, at least."""
SOME = 300
"""Of a sample whose answers are all to come from one backend."""
MANY = 600
"""Of a sample that is to be split."""


@dataclass(slots=True, kw_only=True)
class Play:
    """What a step plays with; `traffic` goes on to iris through all steps, so that a failure anywhere is seen."""

    stage: Stage
    reporter: Reporter
    seconds: float
    traffic: Traffic = field(init=False)
    wanted: dict[str, float] = field(default_factory=lambda: {"stable": 0.9, "v2": 0.1})

    def __post_init__(self) -> None:
        """Prepare the traffic; it is started by whoever runs the steps."""
        self.traffic = self.stage.iris.traffic()

    async def measure(self, title: str) -> Tally:
        """Count what is sent to iris from now on, for the time and the requests of a step."""
        tally = self.traffic.count()
        self.reporter.begin(title, self.wanted, tally)
        await self.traffic.until(tally, requests=REQUESTS, seconds=self.seconds)
        return tally

    async def move(self, stable: int, v2: int) -> None:
        """Edit the split of iris and wait until its Envoy has it."""
        await self.stage.iris.edit(self.stage.policy, self.stage.policy.split(stable, v2))
        self.wanted = {"stable": stable / (stable + v2), "v2": v2 / (stable + v2)}

    def share_step(self, name: str, tally: Tally, failed_before: int) -> Step:
        """A step whose promise is the wanted split and no failed request, also while the file was edited."""
        failed = self.traffic.failed - failed_before
        counts = {variant: tally.variants[variant] for variant in self.wanted} | dict(tally.variants)
        return Step(
            name=name, expected=percent(self.wanted), seen=percent(tally.shares()),
            held=statistics.agrees(self.wanted, counts) and failed == 0,
            requests=tally.total, failed=failed, wanted=self.wanted, counts=counts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some requests of one kind: by whom they are to be answered (shares), and by whom they were."""

    kind: str
    wanted: Mapping[str, float]
    tally: Tally

    @property
    def held(self) -> bool:
        """Whether all were answered, and by whom they were to be."""
        return self.tally.failed == 0 and statistics.agrees(self.wanted, self.tally.variants)

    def expectation(self) -> str:
        """`:explain -> explainer`, or with shares where it is more than one."""
        return f"{self.kind} -> {_shares(self.wanted)}"

    def sight(self) -> str:
        """The same of what was seen."""
        failed = f" ({self.tally.failed} failed)" if self.tally.failed else ""
        return f"{self.kind} -> {_shares(self.tally.shares())}{failed}"


def _shares(shares: Mapping[str, float]) -> str:
    some = {name: share for name, share in shares.items() if share}
    return " ".join(some) if len(some) == 1 else percent(some)


async def sample(
    play: Play, kind: str, wanted: Mapping[str, float], traffic: Traffic, *, requests: int = SOME
) -> Sample:
    """Send `requests` or some more, for a part of a step's time."""
    tally = traffic.count()
    play.reporter.begin(kind, wanted, tally)
    async with traffic.running():
        await traffic.until(tally, requests=requests, seconds=play.seconds / 4)
    return Sample(kind=kind, wanted=wanted, tally=tally)


def samples_step(name: str, samples: Sequence[Sample], failed: int) -> Step:
    """A step that holds if all samples do, and nothing `failed` beside them."""
    lost = failed + sum(one.tally.failed for one in samples)
    counts = sum((one.tally.variants for one in samples), Counter[str]())
    return Step(
        name=name, expected="; ".join(one.expectation() for one in samples),
        seen="; ".join(one.sight() for one in samples), held=lost == 0 and all(one.held for one in samples),
        requests=sum(one.tally.total for one in samples), failed=lost, wanted={}, counts=dict(counts),
        figures={"by": {one.kind: dict(one.tally.variants) for one in samples}},
    )  # fmt: skip
