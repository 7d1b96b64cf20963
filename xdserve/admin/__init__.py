"""Health, metrics and debug output over HTTP."""

from xdserve.admin.server import AdminError, AdminServer, Endpoint
from xdserve.admin.views import Condition, ErrorEntry, ErrorSource, RejectionEntry, State, StatusEntry

__all__ = [
    "AdminError",
    "AdminServer",
    "Condition",
    "Endpoint",
    "ErrorEntry",
    "ErrorSource",
    "RejectionEntry",
    "State",
    "StatusEntry",
]
