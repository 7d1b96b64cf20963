"""xdserve's own ServiceAccount with the rights that the chart gives it: who tests as xdserve is to be this one."""

from __future__ import annotations

from tests.support import chart
from tests.support.kube import ApiError

_RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret")


def chart_account(apiserver, path, values=None):
    """Apply the chart's account, roles and Secret to an apiserver; a kubeconfig of the account, written to `path`."""
    try:
        apiserver.make_namespace(chart.NAMESPACE)
    except ApiError as error:
        if error.status != 409:
            raise
    documents = [one for one in chart.rendered(values) if one["kind"] in _RIGHTS]
    apiserver.apply(*documents, namespace=chart.NAMESPACE, flags=("--force-conflicts",))
    return apiserver.write_kubeconfig(path, token=apiserver.account_token(chart.NAMESPACE, chart.NAME))
