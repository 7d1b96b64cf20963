"""Which host names belong to a service: those derived from its name, and those that a ServiceGateway claims."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from translator import names
from translator.objects.gateway import ServiceGateway
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.ref import KSERVE, KUBEDL, Origin, Ref
from translator.plan import Finding, Reason
from translator.planners.components import COMPONENTS
from translator.planners.indexes import HOSTS, age, target_of
from translator.planners.naming import Naming, naming
from translator.planners.options import Options
from translator.planners.target import Addresses
from translator.view import Absent, View


def inside(ref: Ref, cluster_domain: str) -> tuple[str, ...]:
    """The names inside the cluster: of the service itself and of its gateway's entrance, in full and as short."""
    suffixes = _suffixes(cluster_domain)
    return tuple(f"{name}.{ref.namespace}{suffix}" for name in (ref.name, names.entrance(ref)) for suffix in suffixes)


def addresses(named: Naming, ref: Ref, options: Options) -> Addresses:
    """What a service is called by."""
    host, path = named.host(ref), named.path(ref)
    return Addresses(
        outside=host,
        inside=inside(ref, options.cluster_domain),
        short=short(ref),
        path_host=named.domain if path else "",
        path=path,
        url=named.url(host, path),
    )


def short(ref: Ref) -> tuple[str, ...]:
    """The names that pods of the same namespace can leave it at. A gateway of one service knows whom they mean."""
    return ref.name, names.entrance(ref)


@lru_cache(16)
def _suffixes(cluster_domain: str) -> tuple[str, ...]:
    return "", ".svc", f".svc.{cluster_domain}"


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
    owner = _owner(view, host, options)
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


def _owner(view: View, host: str, options: Options) -> Ref | None:
    """The service that a host name is derived from, if there is one."""
    for namespace, name in _derived_from(view, host, options):
        for group, kind, model in ((KSERVE, "InferenceService", InferenceService), (KUBEDL, "Inference", Inference)):
            ref = Ref(group, kind, namespace, name)
            if not isinstance(view.get(ref, model), Absent):
                return ref
    return None


def _derived_from(view: View, host: str, options: Options) -> Iterator[tuple[str, str]]:
    """Namespaces and names; also those of a service of which the host names a component."""
    for namespace, name in naming(view, options).of_host(host):
        yield namespace, name
        service, dash, component = name.rpartition("-")
        if dash and component in COMPONENTS:
            yield namespace, service
    name, _, rest = host.partition(".")
    namespace, dot, suffix = rest.partition(".")
    if namespace and dot + suffix in _suffixes(options.cluster_domain):
        yield namespace, name
        yield namespace, name.removesuffix(names.ENTRANCE)
