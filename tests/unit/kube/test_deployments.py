"""Why a gateway has no Envoys, in words of its Deployment and pods: one line, the same while the trouble is."""

from __future__ import annotations

import pytest

from xdserve.kube.deployments import LONGEST_LINE, why_not_started

METADATA = {"name": "iris-gateway", "namespace": "models"}
QUOTA = 'pods "iris-gateway-5d8f7c-{}" is forbidden: exceeded quota: small, requested: pods=1, used: pods=5'
WEBHOOK = 'admission webhook "policy.example.org" denied the request: image registry is not trusted'


def deployment(**conditions):
    """With conditions as type=(status, reason, message)."""
    listed = [
        {"type": kind, "status": status, "reason": reason, "message": message}
        for kind, (status, reason, message) in conditions.items()
    ]
    return {"metadata": METADATA, "status": {"conditions": listed}}


def pod(state=None, *, last=None, init=False, scheduled=None):
    container = {"name": "envoy", "image": "example.org/envoy:v9", "state": state or {}, "lastState": last or {}}
    conditions = [scheduled] if scheduled else []
    return {"status": {"conditions": conditions, "initContainerStatuses" if init else "containerStatuses": [container]}}


STARTS = {"Available": ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")}
STARTS["Progressing"] = ("True", "ReplicaSetUpdated", "ReplicaSet is progressing.")
STARTING = deployment(**STARTS)


def test_while_it_starts_nothing_is_said():
    assert why_not_started({"metadata": METADATA}) is None
    assert why_not_started(STARTING, [pod({"waiting": {"reason": "ContainerCreating"}}), pod({"running": {}})]) is None


def test_a_quota_is_told_in_the_same_words_at_each_try():
    told = {
        why_not_started(deployment(**STARTS, ReplicaFailure=("True", "FailedCreate", QUOTA.format(each))))
        for each in ("x2b4k", "9kq7z")
    }
    words = 'pods "iris-gateway-*" is forbidden: exceeded quota: small, requested: pods=1, used: pods=5'
    assert told == {f"no pod can be made (FailedCreate): {words}"}


def test_an_admission_webhook_is_told():
    found = deployment(ReplicaFailure=("True", "FailedCreate", WEBHOOK))
    assert why_not_started(found) == f"no pod can be made (FailedCreate): {WEBHOOK}"


def test_pods_that_do_not_become_available_in_time_are_told():
    words = 'ReplicaSet "iris-gateway-5d8f7c" has timed out progressing.'
    found = why_not_started(deployment(Progressing=("False", "ProgressDeadlineExceeded", words)))
    assert found == (
        "its pods do not become available (ProgressDeadlineExceeded): "
        'ReplicaSet "iris-gateway-*" has timed out progressing. See its pods.'
    )


def test_an_image_that_cannot_be_pulled_is_told_in_the_same_words_by_turns():
    told = {
        why_not_started(STARTING, [pod({"waiting": {"reason": reason, "message": message}}, init=init)])
        for reason, message in (("ErrImagePull", "not found"), ("ImagePullBackOff", "back-off 10s"))
        for init in (False, True)
    }
    assert told == {"container envoy cannot get its image example.org/envoy:v9 (ImagePullBackOff)"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            pod(
                {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}},
                last={"terminated": {"exitCode": 1, "reason": "Error"}},
            ),
            "container envoy ends again and again (CrashLoopBackOff), the last time with exit code 1",
        ),
        (
            pod(
                {"waiting": {"reason": "CrashLoopBackOff"}},
                last={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            ),
            "container envoy ends again and again (CrashLoopBackOff), the last time with exit code 137, OOMKilled",
        ),
        (
            pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "a" not found'}}),
            'container envoy cannot be started (CreateContainerConfigError): secret "a" not found',
        ),
        (
            pod(
                scheduled={
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient memory.",
                }
            ),
            "no node takes its pods: 0/3 nodes are available: 3 Insufficient memory.",
        ),
    ],
)
def test_what_its_pods_say_is_told(found, words):
    assert why_not_started(STARTING, [pod({"running": {}}), found]) == words


def test_what_is_long_or_has_several_lines_is_one_bounded_line():
    found = why_not_started(deployment(ReplicaFailure=("True", "FailedCreate", "denied\n" + "x" * 10_000)))
    assert "\n" not in found
    assert len(found) <= LONGEST_LINE + len("...")


@pytest.mark.parametrize("wrong", [{"status": None}, {"status": {"conditions": None}}, {"status": {}}])
def test_of_what_says_nothing_nothing_is_said(wrong):
    assert why_not_started({"metadata": METADATA, **wrong}, [{}, wrong]) is None
