"""Who may name an object of another namespace."""

from __future__ import annotations

from translator.objects.ref import Ref
from translator.planners.indexes import GRANTS
from translator.view import View


def permitted(view: View, source: Ref, target: Ref) -> bool:
    """Whether one object may refer to another: within a namespace always, else by the ReferenceGrants there."""
    if source.namespace == target.namespace:
        return True
    return any(grant.permits(source, target) for grant in view.find(GRANTS, (target.namespace, source.namespace)))
