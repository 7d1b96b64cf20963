"""A core Service as a target: a policy or ServiceGateway on it makes a gateway with one backend of its name."""

from __future__ import annotations

from translator.objects.core import Service
from translator.objects.ref import Origin
from translator.planners import hosts
from translator.planners.endpoints import PortOf
from translator.planners.naming import naming
from translator.planners.options import Options
from translator.planners.target import Candidate, Target, Weighted
from translator.view import View


def target(view: View, service: Service, options: Options) -> Target:
    """What a Service asks for: everything to its main port."""
    name = service.ref.name
    return Target(
        ref=service.ref,
        candidates={
            name: Candidate(name, PortOf(service.ref.namespace, name, None), Origin(service.ref, "spec.ports"))
        },
        entry=name,
        split=(Weighted(name, 100),),
        split_origin=Origin(service.ref, "spec.ports"),
        # The Service's own in-cluster names reach its pods, but whoever names them at the gateway means the gateway.
        addresses=hosts.addresses(naming(view, options), service.ref, options),
    )
