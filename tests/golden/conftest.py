"""`--update-golden` writes what translation gives now; without it, every difference is a failure."""

from __future__ import annotations

import pytest


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the golden files again")


@pytest.fixture(scope="session")
def update_golden(request) -> bool:
    # The option is known only to a run that was given this folder.
    return bool(request.config.getoption("--update-golden", default=False))
