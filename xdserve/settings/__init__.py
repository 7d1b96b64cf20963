"""The program's settings: what there are (``model``), of what form (``values``), and from where (``loading``)."""

from __future__ import annotations

from xdserve.settings.loading import CONFIG_VARIABLE, SettingsError, flag_of, load, variable_of
from xdserve.settings.model import ENV_PREFIX, Settings
from xdserve.settings.values import LogFormat, LogLevel, Provision, Word, short

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "LogFormat",
    "LogLevel",
    "Provision",
    "Settings",
    "SettingsError",
    "Word",
    "flag_of",
    "load",
    "short",
    "variable_of",
]
