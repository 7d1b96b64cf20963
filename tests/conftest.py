"""Fixtures of all tests."""

from __future__ import annotations

import logging
import os
import signal

import pytest
import structlog
from hypothesis import HealthCheck, settings

# How long a machine takes to think of an example says nothing of the program. Nor does luck: the same code has the same
# examples, so that what passed passes again. `make test-long` tries others.
settings.register_profile("untimed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config):
    # Children hear Ctrl-C, also where the tests run in the background of a shell, which has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # And keep what they compile: some hundred start, each of which would compile all of xdserve.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def log_as_found():
    """For tests that run commands in their own process: those configure the log of all of it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
