"""The steps of the demo on Kubernetes, each a promise of xdserve and what kubectl and the clients see of it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from statistics import median

from tests.kube.demo.kubectl import KubectlError
from tests.kube.demo.stage import CRDS, ROOT
from tests.support import chart
from xdserve.conditions import GATEWAY_PROGRAMMED
from xdserve.demo import protocols, statistics
from xdserve.demo.driver import Tally
from xdserve.demo.play import sample, samples_step
from xdserve.demo.report import Step
from xdserve.demo.waiting import until
from xdserve.kube.parts import KINDS

EDITS = 20
_SETTLE = 100
_LIVE_SECONDS = 10.0
_TIMEOUT = "--timeout=30s"
_PARTS = "sa,cm,svc,pdb,deploy"
_OWNER = ".metadata.ownerReferences[0]"
_TABLE = f"-o=custom-columns=KIND:.kind,NAME:.metadata.name,OWNER:{_OWNER}.kind,NAMED:{_OWNER}.name"
_CONDITIONS = '{range .status.ancestors[0].conditions[*]}{.type}={.status} {.reason}: {.message}{"\\n"}{end}'
_FIELD = "spec.rules[0].matches[0].headers[0].value"
_ACCOUNTS = "system:serviceaccount:"
_ACCOUNT = f"{chart.NAMESPACE}:{chart.NAME}"


async def installed(play, name):
    """xdserve runs under the chart's ServiceAccount, with the rights of the chart and no others."""
    stage, kubectl, screen = play.stage, play.stage.kubectl, play.stage.kubectl.screen
    play.reporter.begin("the CRDs of KServe, KubeDL and Gateway API; xdserve by its chart", {}, Tally())
    await kubectl("create", "namespace", chart.NAMESPACE)
    screen.command("kubectl", "apply", "--server-side", "-f", str(CRDS.relative_to(ROOT)))
    applied = await kubectl("apply", "--server-side", "-f", str(CRDS), quiet=True)
    screen.output(applied.out)
    folder = str(chart.CHART.relative_to(ROOT))
    screen.command("helm", "upgrade", "--install", chart.NAME, folder, f"--namespace={chart.NAMESPACE}")
    await asyncio.to_thread(chart.install, stage.apiserver.kubeconfig)
    await until(lambda: _established(kubectl), "the CRDs to be established", 60.0)
    seconds = await stage.start_xdserve()
    as_xdserve = f"--kubeconfig={stage.account.name}"
    who = (await kubectl("auth", "whoami", as_xdserve, "-o=jsonpath={.status.userInfo.username}")).out
    may = (await kubectl.attempt("auth", "can-i", "watch", "inferenceservices", as_xdserve)).out.strip()
    may_not = (await kubectl.attempt("auth", "can-i", "list", "secrets", as_xdserve)).out.strip()
    who = who.removeprefix(_ACCOUNTS)
    return told(
        name, f"runs as {_ACCOUNT}; may watch InferenceServices: yes; list Secrets: no",
        f"{who}; {may}; {may_not}; ready {seconds:.1f} s after its start",
        (who, may, may_not) == (_ACCOUNT, "yes", "no"), ready_after_s=round(seconds, 3),
    )  # fmt: skip


async def _established(kubectl):
    """Whether all CRDs are served; kubectl fails on one that has no conditions yet."""
    return not (await kubectl.attempt("wait", "crd", "--all", "--for=condition=Established", quiet=True)).status


async def applied(play, name):
    """An InferenceService, its Services and EndpointSlices are applied: the manifests of its gateway appear."""
    kubectl = play.stage.kubectl
    play.reporter.begin("an InferenceService, what KServe makes of it, and a policy", {}, Tally())
    await kubectl("create", "namespace", "models")
    said = await kubectl("apply", *play.stage.files("iris"))
    milliseconds, owned = await _appeared(play, "iris", said)
    return told(
        name, f"{len(KINDS)} objects named iris-gateway, owned by iris",
        f"{owned} of {len(KINDS)}, {milliseconds} ms after kubectl's start", owned == len(KINDS),
        appeared_after_ms=milliseconds,
    )  # fmt: skip


async def _appeared(play, service, said):
    """Milliseconds until the last object of a gateway was there, and how many of them belong to the service."""
    kubectl, gateway = play.stage.kubectl, f"{service}-gateway"
    await kubectl.models("wait", "--for=create", f"deployment/{gateway}", _TIMEOUT)
    milliseconds = round((time.perf_counter() - said.begun) * 1000)
    table = await kubectl.models("get", _PARTS, f"-l=app.kubernetes.io/instance={gateway}", _TABLE)
    rows = [line.split() for line in table.out.splitlines()[1:]]
    return milliseconds, sum((row[1], row[-1]) == (gateway, service) for row in rows)


async def served(play, name):
    """A stock Envoy that is started from these manifests gets its configuration, and the InferenceService says so."""
    play.reporter.begin("a kubelet's part: the pod's command, ConfigMap, token and probes", {}, Tally())
    seconds = await _run_pod(play, "iris")
    programmed = f"--for=condition={GATEWAY_PROGRAMMED}"
    await play.stage.kubectl.models("wait", "inferenceservice/iris", programmed, _TIMEOUT)
    path = f'{{.status.conditions[?(@.type=="{GATEWAY_PROGRAMMED}")].status}}'
    status = (await play.stage.kubectl.models("get", "isvc", "iris", f"-o=jsonpath={path}", quiet=True)).out
    return told(
        name, "ready by its own probe; the InferenceService says so",
        f"ready {round(seconds * 1000)} ms after its start; its condition is {status}", status == "True",
        ready_after_ms=round(seconds * 1000),
    )  # fmt: skip


async def _run_pod(play, service):
    """Run a pod of a gateway; seconds until it was ready."""
    seconds = await play.stage.start_pod(service)
    container = play.stage.pods[service].container
    play.stage.kubectl.screen.note(f"as a kubelet: {' '.join([*container['command'], *container['args']])}")
    return seconds


async def canary(play, name):
    """The split as it is written in the policy."""
    failed = play.traffic.failed
    tally = await play.measure("the canary as applied: 90/10")
    return play.share_step(name, tally, failed)


async def patched(play, name):
    """A patch moves the split."""
    failed = play.traffic.failed
    await _edit(play, _split(50, 50))
    play.wanted = {"stable": 0.5, "v2": 0.5}
    tally = await play.measure("the policy patched: 90/10 -> 50/50")
    return play.share_step(name, tally, failed)


async def _edit(play, spec):
    """Patch the policy of iris, and wait until its Envoy has other routes."""
    envoy = play.stage.iris.envoy
    before = await envoy.versions("route_configs")
    await play.stage.kubectl.patch("trafficpolicy", "iris", spec)

    async def changed():
        return await envoy.versions("route_configs") != before

    await until(changed, "the Envoy of iris to have what the patched policy says")


def _split(stable, v2):
    return {"split": [{"backend": "stable", "weight": stable}, {"backend": "v2", "weight": v2}]}


async def latency(play, name):
    """From the apiserver's answer to a patch until the first answer by the new rule."""
    failed, traffic, kubectl = play.traffic.failed, play.traffic, play.stage.kubectl
    await _edit(play, _split(100, 0))
    whole = Tally()
    play.reporter.begin(f"{EDITS} patches to and fro, all to one and then all to the other", {}, whole)
    times, entire, wrong = [], [], 0
    for at in range(EDITS):
        stable = (0, 100)[at % 2]
        variant = "stable" if stable else "v2"
        first = traffic.expect(variant)
        said = await kubectl.patch("trafficpolicy", "iris", _split(stable, 100 - stable), quiet=at > 1)
        answer = await asyncio.wait_for(first, _LIVE_SECONDS)
        times.append((answer - said.answered) * 1000)
        entire.append((answer - said.begun) * 1000)
        after = traffic.count()
        await traffic.until(after, requests=_SETTLE)
        wrong += after.variants.total() - after.variants[variant]
        whole.variants += after.variants
        whole.statuses += after.statuses
    kubectl.screen.note(f"and {EDITS - 2} patches more")
    figures, failed = statistics.summary(times), traffic.failed - failed
    return Step(
        name=name, expected=f"{EDITS} patches, none answered by the old rule after the new",
        seen=f"median {figures['median']:.1f} ms, p99 {figures['p99']:.1f} ms after the apiserver's answer (with "
        f"kubectl's own start {median(entire):.0f} ms); {wrong} by the old rule",
        held=wrong == 0 and failed == 0, requests=whole.total, failed=failed,
        wanted={}, counts=dict(whole.variants), edit_to_answer_ms=figures,
    )  # fmt: skip


async def testers(play, name):
    """A rule sends who has a header to the new model, and nobody else."""
    failed, iris = play.traffic.failed, play.stage.iris
    await _edit(play, _split(90, 10) | _rule("true"))
    play.wanted = {"stable": 0.9, "v2": 0.1}
    samples = [
        await sample(play, "header x-tester", {"v2": 1.0}, iris.traffic(iris.request({"x-tester": "true"}))),
        await sample(play, "all others", play.wanted, iris.traffic(), requests=600),
    ]
    return samples_step(name, samples, play.traffic.failed - failed)


def _rule(value, **more):
    match = {"headers": [{"name": "x-tester", "value": value, **more}]}
    return {"rules": [{"name": "testers", "matches": [match], "split": [{"backend": "v2", "weight": 1}]}]}


async def refused(play, name):
    """What the definition of the kind forbids the apiserver refuses at once."""
    kubectl = play.stage.kubectl
    play.reporter.begin("a weight of -5: the apiserver refuses it", {}, Tally())
    try:
        await kubectl.patch("trafficpolicy", "iris", _split(-5, 105))
    except KubectlError as error:
        words = str(error)
        kubectl.screen.output(words)
    else:
        words = "it was taken"
    field = "spec.split[0].weight"
    said = words.partition(": ")[2] or words
    return told(name, f"refused; {field} named", said.replace(f"{field} in body ", ""), field in words)


async def bad(play, name):
    """What the apiserver cannot know: the policy says what is wrong with it, and the old split is served."""
    kubectl, failed = play.stage.kubectl, play.traffic.failed
    spec = _split(0, 100) | _rule("(true", type="RegularExpression")
    await kubectl.patch("trafficpolicy", "iris", spec)
    await _condition(play, "iris", "Accepted", "False")
    said = (await kubectl.models("get", "trafficpolicy", "iris", f"-o=jsonpath={_CONDITIONS}")).out
    await _event(play, "Invalid")
    tally = await play.measure("a bad policy: traffic goes on as before")
    step = play.share_step(name, tally, failed)
    told_so = next((line for line in said.splitlines() if line.startswith("Accepted=False")), "")
    return dataclasses.replace(
        step, expected=f"{step.expected} as before; Accepted=False with the field", seen=f"{step.seen}; {told_so}",
        held=step.held and _FIELD in told_so, figures={"conditions": said.splitlines()},
    )  # fmt: skip


async def _condition(play, policy, kind, status):
    """Wait until a policy has a condition so, and show all of its conditions in short."""
    path = f'{{.status.ancestors[0].conditions[?(@.type=="{kind}")].status}}'
    await play.stage.kubectl.models("wait", f"trafficpolicy/{policy}", f"--for=jsonpath={path}={status}", _TIMEOUT)
    await play.stage.kubectl.models("get", "trafficpolicy", policy)


async def _event(play, reason):
    """Wait until an Event on the policy of iris gives this reason, and show all of them."""
    words = ("events", "--for=trafficpolicy/iris")

    async def told_of():
        return reason in (await play.stage.kubectl.models(*words, quiet=True)).out

    await until(told_of, f"an Event with the reason {reason}", every=0.2)
    await play.stage.kubectl.models(*words)


async def mended(play, name):
    """The mended policy is live at once, and the policy says so."""
    failed, iris = play.traffic.failed, play.stage.iris
    await _edit(play, _split(75, 25) | _rule("(true|yes)", type="RegularExpression"))
    await _condition(play, "iris", "Accepted", "True")
    play.wanted = {"stable": 0.75, "v2": 0.25}
    samples = [
        await sample(play, "header x-tester: yes", {"v2": 1.0}, iris.traffic(iris.request({"x-tester": "yes"}))),
        await sample(play, "all others", play.wanted, iris.traffic(), requests=600),
    ]
    return samples_step(name, samples, play.traffic.failed - failed)


async def kubedl(play, name):
    """An Inference of KubeDL gets its gateway too: its own weights, and a policy's rules by cookie and header."""
    kubectl = play.stage.kubectl
    play.reporter.begin("an Inference, what KubeDL makes of it, and a policy", {}, Tally())
    said = await kubectl("apply", *play.stage.files("mnist"))
    _, owned = await _appeared(play, "mnist", said)
    await _run_pod(play, "mnist")
    await _condition(play, "mnist", "Programmed", "True")  # KubeDL's own status has no room for conditions
    step = await protocols.kubedl(play, name)
    return dataclasses.replace(
        step, expected=f"{len(KINDS)} objects; {step.expected}", seen=f"{owned} objects; {step.seen}",
        held=step.held and owned == len(KINDS),
    )  # fmt: skip


async def deleted(play, name):
    """With the InferenceService its gateway goes; the other gateway notices nothing."""
    stage, kubectl = play.stage, play.stage.kubectl
    async with stage.mnist.traffic(connections=4).running() as traffic:
        tally = traffic.count()
        play.reporter.begin("iris deleted, and traffic to mnist", {"v1": 0.9, "v2": 0.1}, tally)
        await kubectl.models("delete", "inferenceservice", "iris")
        kubectl.screen.note("what it owned goes by the cluster's garbage collector; here kubectl is it")
        await kubectl.models("delete", _PARTS, "-l=app.kubernetes.io/instance=iris-gateway")
        left = await until(lambda: _gone(play), "the gateway's objects to be gone", 20.0, every=0.2)
        ended = await stage.pods["iris"].stop()
        await traffic.until(tally, requests=1_000, seconds=play.seconds)
    lost = traffic.failed
    return Step(
        name=name, expected="no object of its gateway left; the pod ends in order; 0 failed at mnist",
        seen=f"{left}; Envoy ended with status {ended} after its preStop; {lost} failed at mnist",
        held=ended == 0 and lost == 0, requests=tally.total, failed=lost, wanted={}, counts=dict(tally.variants),
    )  # fmt: skip


async def _gone(play):
    """What kubectl says when there is nothing left; empty until then."""
    words = ("-n", "models", "get", _PARTS, "-l=app.kubernetes.io/instance=iris-gateway")
    said = await play.stage.kubectl.attempt(*words, quiet=True)
    if said.out or said.status:
        return ""
    play.stage.kubectl.screen.command("kubectl", *words)
    play.stage.kubectl.screen.output(said.err)
    return said.err.strip().rstrip(".")


def told(name, expected, seen, held, **figures):
    """A step without requests."""
    return Step(
        name=name, expected=expected, seen=seen, held=held, requests=0, failed=0, wanted={}, counts={}, figures=figures
    )
