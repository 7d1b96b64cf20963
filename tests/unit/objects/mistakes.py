"""A policy and a gateway without a mistake, and how to make one in them."""

from __future__ import annotations

import copy

import pytest
import yaml

from translator.objects import ObjectInvalid, parse

POLICY = yaml.safe_load("""
apiVersion: xdserve.io/v1alpha1
kind: TrafficPolicy
metadata: {name: iris, namespace: models}
spec:
  targetRef: {group: serving.kserve.io, kind: InferenceService, name: iris}
  backends:
  - name: stable
    ref: {group: serving.kserve.io, kind: InferenceService, name: iris, sectionName: predictor}
  - name: v2
    ref: {kind: Service, name: iris-v2-predictor, port: 80, namespace: other}
    protocol: H2C
    whenUnready: Fail
  split:
  - {backend: stable, weight: 90}
  - {backend: v2, weight: 10, priority: 1}
  sticky: {by: Cookie, name: xd, ttl: 1h30m}
  rules:
  - name: testers
    matches:
    - headers: [{name: X-Tester, value: "true"}, {name: x-a, type: Present}, {name: x-b, type: Prefix, value: b}]
      cookies: [{name: beta, value: "1"}]
      queryParams: [{name: debug, type: RegularExpression, value: "[0-9]+"}]
      path: {value: /v1/models}
      method: POST
    split: [{backend: v2}]
    sticky: {by: Header, name: X-User-Id}
    timeouts: {request: 1s500ms, idle: 0s}
  - {name: rest}
  timeouts: {request: 0s, idle: 5m, connect: 2s}
status: {ancestors: []}
""")

GATEWAY = yaml.safe_load("""
apiVersion: xdserve.io/v1alpha1
kind: ServiceGateway
metadata: {name: iris}
spec:
  targetRef: {kind: Service, name: iris}
  mode: Dedicated
  hosts: [Models.Example.org, "*.example.org"]
  address: 127.0.0.1
  port: 8081
""")

ABSENT = object()


def changed(document: dict, path: str, value: object) -> dict:
    """The document with another value (or none) at a path like ``spec.split.0.weight``."""
    document = copy.deepcopy(document)
    *steps, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = document
    for step in steps:
        place = place[step]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return document


def problems(document: object) -> list[str]:
    with pytest.raises(ObjectInvalid) as raised:
        parse(document)
    lines = [str(problem) for problem in raised.value.problems]
    assert all(line.isprintable() and len(line) < 400 for line in lines)
    assert str(raised.value).isprintable()
    return lines
