"""Resources as text that is there to be read, line by line: YAML without anchors, what fits a line in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_LONGEST = 110


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _sequence(dumper: yaml.SafeDumper, sequence: Sequence[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", sequence, _is_short(sequence))


def _mapping(dumper: yaml.SafeDumper, mapping: Mapping[str, Any]) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", mapping, _is_short(mapping))


for _kind in (list, tuple):
    _Dumper.add_representer(_kind, _sequence)
_Dumper.add_representer(dict, _mapping)


def _is_short(value: object) -> bool:
    return len(str(value)) <= _LONGEST


def readable(content: object) -> str:
    """Plain data as YAML; equal data, equal text."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True))
