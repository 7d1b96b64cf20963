"""The files that the demo edits, as a user would: a text changed, the file replaced at once."""

from __future__ import annotations

import re
import time
from pathlib import Path

_TRANSFORMER = "  transformer:\n    containers:\n    - {name: kserve-container, image: example/iris-transformer}\n"


class EditedFile:
    """A file; `good` is its text without what is tried in passing, `name` its path in the source."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.good = path.read_text()

    def replace(self, text: str) -> float:
        """Put `text` in place by a rename and say when that was (perf_counter)."""
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(text)
        at = time.perf_counter()
        new.replace(self.path)
        return at

    def has(self, text: str) -> bool:
        """Whether it is `text` that the file has now."""
        return self.path.read_text() == text


class PolicyFile(EditedFile):
    """The TrafficPolicy of iris."""

    def split(self, stable: int, v2: int) -> str:
        """The good text with these weights, which is the good text from now on."""
        text = re.sub(r"(backend: stable, weight: )\d+", rf"\g<1>{stable}", self.good)
        head, rules, tail = text.partition("\n  rules:")
        self.good = re.sub(r"(backend: v2, weight: )\d+", rf"\g<1>{v2}", head) + rules + tail
        return self.good

    def sticky(self) -> str:
        """The good text with a sticky cookie; what counts as good stays."""
        return self.good.replace("\n  rules:", "\n  sticky: {by: Cookie, name: xdserve, ttl: 1h}\n  rules:")


def with_transformer(text: str) -> str:
    """The InferenceService of iris with a transformer in front."""
    return text.replace("  explainer:\n", f"{_TRANSFORMER}  explainer:\n", 1)


def with_connect_timeout(text: str) -> str:
    """The TrafficPolicy of llm with another timeout for connections: clusters change."""
    return re.sub(r"timeouts: \{.*\}", "timeouts: {request: 0s, idle: 5m, connect: 3s}", text)


def with_rule(text: str) -> str:
    """The TrafficPolicy of llm with one rule more: routes change."""
    rule = '  - name: trial\n    matches:\n    - headers: [{name: x-trial, value: "1"}]\n    split:\n'
    return text.replace("  timeouts:", f"{rule}    - {{backend: predictor, weight: 1}}\n  timeouts:", 1)
