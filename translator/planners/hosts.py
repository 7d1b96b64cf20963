"""Which host names belong to a service: those derived from its name, and those that a ServiceGateway claims."""

from __future__ import annotations

from translator import names
from translator.objects.gateway import ServiceGateway
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.ref import KSERVE, KUBEDL, Origin, Ref
from translator.plan import Finding, Reason
from translator.planners.indexes import HOSTS, age, target_of
from translator.planners.options import Options
from translator.view import Absent, View

CLUSTER_SUFFIXES = ("", ".svc", ".svc.cluster.local")


def outside(ref: Ref, domain: str, component: str = "") -> str:
    """The name from outside, as KServe's domain template has it: ``iris-models.<domain>``."""
    part = f"-{component}" if component else ""
    return f"{ref.name}{part}-{ref.namespace}.{domain}"


def inside(ref: Ref) -> tuple[str, ...]:
    """The names inside the cluster: of the service itself and of its gateway's entrance."""
    return tuple(
        f"{name}.{ref.namespace}{suffix}" for name in (ref.name, names.entrance(ref)) for suffix in CLUSTER_SUFFIXES
    )


def claimed(
    view: View, gateway: ServiceGateway, derived: tuple[str, ...], options: Options
) -> tuple[tuple[str, ...], list[Finding]]:
    """The further hosts of a gateway that it may have; what keeps it from the others are findings."""
    granted: list[str] = []
    findings: list[Finding] = []
    for position, host in enumerate(gateway.spec.hosts):
        if host in derived:
            continue
        refused = _refusal(view, gateway, host, options)
        if refused is None:
            granted.append(host)
        else:
            findings.append(Finding(Origin(gateway.ref, f"spec.hosts[{position}]"), *refused))
    return tuple(granted), findings


def _refusal(view: View, gateway: ServiceGateway, host: str, options: Options) -> tuple[Reason, str] | None:
    owner = _owner(view, host, options.domain)
    if owner is not None and owner != target_of(gateway):
        return Reason.CONFLICTED, f"{host} belongs to {owner}"
    if not options.allows_host(gateway.ref.namespace, host):
        return Reason.INVALID, (
            f"{host} is not allowed for namespace {gateway.ref.namespace}; allowed is what the setting "
            "allowed_hosts lists"
        )
    # Whoever may not have the host does not keep others from it.
    claims = [found for found in view.find(HOSTS, host) if options.allows_host(found.ref.namespace, host)]
    oldest = min(claims, key=age)
    if oldest.ref != gateway.ref:
        return Reason.CONFLICTED, f"{host} is claimed by the older {oldest.ref}"
    return None


def _owner(view: View, host: str, domain: str) -> Ref | None:
    """The service that a host name is derived from, if there is one."""
    for namespace, name in _derived_from(host, domain):
        for group, kind, model in ((KSERVE, "InferenceService", InferenceService), (KUBEDL, "Inference", Inference)):
            ref = Ref(group, kind, namespace, name)
            if not isinstance(view.get(ref, model), Absent):
                return ref
    return None


def _derived_from(host: str, domain: str) -> list[tuple[str, str]]:
    labels = host.split(".")
    if host.endswith("." + domain):
        words = host.removesuffix("." + domain).split("-")
        return [("-".join(words[cut:]), "-".join(words[:cut])) for cut in range(1, len(words))]
    if ".".join(["", *labels[2:]]).rstrip(".") in CLUSTER_SUFFIXES and len(labels) >= 2:
        return [(labels[1], labels[0]), (labels[1], labels[0].removesuffix(names.ENTRANCE))]
    return []
