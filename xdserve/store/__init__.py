"""What outlives the server: what Envoys acknowledged or refused, and what is in force, in one file of SQLite.

A gateway whose present input is refused is so served its last good configuration after a restart too. Secrets are
never written. The file is a cache of what can be learnt again: losing it costs the fallback until the next ACKs, so a
file that cannot be used never keeps the server from starting.
"""

from __future__ import annotations

from xdserve.store.database import Store
from xdserve.store.keeper import Deciding, Keeper, Remembering
from xdserve.store.policies import Accepted, Policies
from xdserve.store.reading import Memories

__all__ = ["Accepted", "Deciding", "Keeper", "Memories", "Policies", "Remembering", "Store"]
