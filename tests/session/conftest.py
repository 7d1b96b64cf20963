"""How long the random tests run: `--hypothesis-profile=long` tries 10,000 lives instead of some."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "long", max_examples=10_000, derandomize=False, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
