"""What can be told of objects without serving them: their translation, what is wrong with them, what an edit sends."""

from __future__ import annotations

from xdserve.offline.planning import Scopes, plan_all
from xdserve.offline.translation import Translated, translate

__all__ = ["Scopes", "Translated", "plan_all", "translate"]
