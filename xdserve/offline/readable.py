"""Resources as text that is there to be read, line by line: YAML without anchors, what fits a line in one."""

from __future__ import annotations

from typing import Any

import yaml

_LONGEST = 110


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: object = None) -> yaml.SequenceNode:  # noqa: ANN401, ARG002
        return super().represent_sequence(tag, sequence, _is_short(sequence))

    def represent_mapping(self, tag: str, mapping: Any, flow_style: object = None) -> yaml.MappingNode:  # noqa: ANN401, ARG002
        return super().represent_mapping(tag, mapping, _is_short(mapping))


def _is_short(value: object) -> bool:
    return len(str(value)) <= _LONGEST


def readable(content: object) -> str:
    """Plain data as YAML; equal data, equal text."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True))
