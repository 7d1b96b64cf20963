"""Where settings come from, and what is said of wrong ones.

Strongest first: a flag, an ``XDSERVE_*`` variable, the file (YAML, ``--config`` or ``XDSERVE_CONFIG``), the default.
A stronger source replaces the whole value of a setting, also where the value is a map.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource
from yaml.constructor import ConstructorError

from xdserve.settings.model import ENV_PREFIX, Settings
from xdserve.settings.values import short

CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"

_MAX_FILE = 1 << 20


class SettingsError(Exception):
    """Wrong settings; ``lines`` has one line for each wrong value."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class _Source(NamedTuple):
    """Values of one source, and how it calls a setting when it speaks of it."""

    values: Mapping[str, Any]
    call: str  # a format for the name of the setting

    def name(self, setting: str) -> str:
        return self.call.format(flag=flag_of(setting), variable=variable_of(setting), key=setting)


def flag_of(setting: str) -> str:
    """``xds_address`` -> ``--xds-address``."""
    return "--" + setting.replace("_", "-")


def variable_of(setting: str) -> str:
    """``xds_address`` -> ``XDSERVE_XDS_ADDRESS``."""
    return ENV_PREFIX + setting.upper()


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Join flags, variables and the file into settings.

    Args:
        flags: values by setting; None counts as not given.
        config: the file; without it the one that ``XDSERVE_CONFIG`` names, if any.

    Raises:
        SettingsError: one line for each wrong value: where it came from, what was found, what is allowed.
    """
    sources = [
        _Source({name: value for name, value in (flags or {}).items() if value is not None}, "{flag}"),
        _Source(EnvSettingsSource(Settings)(), "{variable}"),
        _file(config),
    ]
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values.update(source.values)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError([_line(details, sources) for details in error.errors(include_url=False)]) from None


def _file(config: Path | None) -> _Source:
    given, name = (config, "--config") if config else (os.environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)
    if not given:
        return _Source({}, "")
    path = Path(given)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise SettingsError([f"{path}: found a file of more than {_MAX_FILE} bytes, allowed {_MAX_FILE}"])
        content = _Loader(text).get_single_data() or {}
    except OSError as error:
        raise SettingsError([f"{name}: {path}: {error.strerror}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SettingsError([f"{path}: {_yaml_words(error)}"]) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError([f"{path}: found {short(content)}, allowed a map of settings"])
    return _Source(content, str(path).replace("{", "{{").replace("}", "}}") + ": {key}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice in a map: of two values YAML's own would take the last without a word."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Called by PyYAML for each map before its values are made."""
        written: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in written:
                raise ConstructorError(None, None, f"found key {short(key.value)} twice in one map", key.start_mark)
            written.add(key.value)
        super().flatten_mapping(node)


def _yaml_words(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f"not YAML: {short(str(error))}"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _line(details: ErrorDetails, sources: Sequence[_Source]) -> str:
    setting, *path = details["loc"]
    source = next((source for source in sources if setting in source.values), None)
    if source is None:
        return f"{flag_of(str(setting))}: not given, allowed {_allowed(details)}"
    where = source.name(_plain(setting)) + "".join(f"[{p}]" if isinstance(p, int) else f".{_plain(p)}" for p in path)
    if details["type"] == "extra_forbidden":
        return f"{where}: no such setting, allowed {', '.join(Settings.model_fields)}"
    return f"{where}: found {short(_found(details, source))}, allowed {_allowed(details)}"


def _plain(key: object) -> str:
    """A key as it was written, unless a terminal could not show it."""
    return str(key) if str(key).isprintable() else short(key)


def _found(details: ErrorDetails, source: _Source) -> object:
    # Where a validator turned the value into another one, what the user wrote says more.
    return source.values[str(details["loc"][0])] if len(details["loc"]) == 1 else details["input"]


_ALLOWED = {
    "enum": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "dict_type": "a map of namespaces to lists of patterns",
    "mapping_type": "a map of namespaces to lists of patterns",
    "tuple_type": "a list",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
}


def _allowed(details: ErrorDetails) -> str:
    known = _ALLOWED.get(details["type"])
    return known.format(**details.get("ctx", {})) if known else details["msg"]
