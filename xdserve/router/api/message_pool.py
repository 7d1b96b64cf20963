"""The pool that every message class registers itself in: the one of xds/api."""

from xds.api.message_pool import default_message_pool

__all__ = ["default_message_pool"]
