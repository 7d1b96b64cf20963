"""Whose turn it is among namespaces."""

from __future__ import annotations

import pytest

from translator.objects import Ref
from xdserve.kube.turns import Turns


def config_map(namespace, name):
    return Ref("", "ConfigMap", namespace, name)


def test_a_namespace_with_much_to_do_does_not_hold_up_another():
    turns = Turns()
    many = [config_map("many", str(number)) for number in range(100)]
    for ref in (*many, config_map("one", "ca"), many[0]):
        turns.add(ref)
    assert [turns.take().namespace for _ in range(3)] == ["many", "one", "many"]
    assert [turns.take() for _ in range(98)] == many[2:]
    assert not turns


def test_what_is_discarded_has_no_turn():
    turns = Turns()
    turns.add(config_map("models", "ca"))
    turns.discard(config_map("models", "ca"))
    turns.discard(config_map("other", "ca"))
    assert not turns
    with pytest.raises(KeyError):
        turns.take()
