"""Why a gateway's Deployment has no pods that run, in one line: in its own words, and in those of its pods. Pure.

What Kubernetes repeats with another name or number each time is left out: each change is a write to an object's status.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xdserve.words import shown

LONGEST_LINE = 400
"""Characters of what Kubernetes says."""

Found = Mapping[str, Any]

_PULLS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
"""A pod is in the first two by turns, so they are one."""
_STARTS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_CRASHES = "CrashLoopBackOff"
_TROUBLES = {("ReplicaFailure", "True"), ("Progressing", "False")}


def troubles(deployment: Found) -> list[Found]:
    """The conditions by which a Deployment says that something is wrong."""
    found = _list(deployment.get("status"), "conditions")
    return [one for one in found if (one.get("type"), one.get("status")) in _TROUBLES]


def why_not_started(deployment: Found, pods: Iterable[Found] = ()) -> str | None:
    """What keeps a Deployment from having pods that run; None where it says nothing, as while they start."""
    said = {one.get("type"): one for one in troubles(deployment)}
    if failure := said.get("ReplicaFailure"):
        return _line("no pod can be made", failure, deployment)
    if (found := next((line for pod in pods for line in _of_pod(pod)), None)) is not None:
        return found
    if progress := said.get("Progressing"):
        return _line("its pods do not become available", progress, deployment) + " See its pods."
    return None


def _of_pod(pod: Found) -> Iterator[str]:
    for one in _list(pod.get("status"), "conditions"):
        if (one.get("type"), one.get("status"), one.get("reason")) == ("PodScheduled", "False", "Unschedulable"):
            yield shown(f"no node takes its pods: {one.get('message', '')}", LONGEST_LINE)
    status = pod.get("status")
    for one in (*_list(status, "initContainerStatuses"), *_list(status, "containerStatuses")):
        if (line := _of_container(one)) is not None:
            yield shown(line, LONGEST_LINE)


def _of_container(status: Found) -> str | None:
    waiting, name = _of(_of(status, "state"), "waiting"), status.get("name", "")
    reason = waiting.get("reason")
    if reason in _PULLS:
        return f"container {name} cannot get its image {status.get('image', '')} (ImagePullBackOff)"
    if reason in _STARTS:
        return f"container {name} cannot be started ({reason}): {waiting.get('message', '')}"
    if reason == _CRASHES:
        ended = _of(_of(status, "lastState"), "terminated")
        return f"container {name} ends again and again (CrashLoopBackOff), the last time with exit code {_code(ended)}"
    return None


def _code(ended: Found) -> str:
    """``1``, ``137, OOMKilled``."""
    reason = ended.get("reason")
    code = str(ended.get("exitCode", "unknown"))
    return code if reason in {None, "Error", "Completed"} else f"{code}, {reason}"


def _line(what: str, condition: Found, deployment: Found) -> str:
    """The condition in one line; each try to make a pod has another name of its own."""
    name = str(deployment["metadata"]["name"])
    message = re.sub(f'"{re.escape(name)}-[a-z0-9-]*"', f'"{name}-*"', str(condition.get("message", "")))
    return shown(f"{what} ({condition.get('reason', '')}): {message}", LONGEST_LINE)


def _list(found: object, name: str) -> Iterable[Found]:
    return _of({"": found}, "").get(name) or ()


def _of(found: Found, name: str) -> Found:
    inner = found.get(name)
    return inner if isinstance(inner, Mapping) else {}
