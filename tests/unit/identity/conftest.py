"""What is told of files that are read again, and a watch that no secret is among it."""

from __future__ import annotations

import logging

import pytest


class Told:
    """Takes the reports of credentials."""

    def __init__(self):
        self.lines = []

    def __call__(self, level, line):
        self.lines.append((level, line))

    @property
    def errors(self):
        return [line for level, line in self.lines if level == logging.ERROR]

    @property
    def news(self):
        return [line for level, line in self.lines if level == logging.INFO]


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def secrets(told, caplog, capfd):
    """Texts that must stand nowhere in the log, in reports and in what is printed; add to it."""
    caplog.set_level(logging.DEBUG)
    hidden = set()
    yield hidden
    printed = "".join(capfd.readouterr())
    for secret in hidden:
        assert secret not in caplog.text
        assert secret not in repr(told.lines)
        assert secret not in printed
