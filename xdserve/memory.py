"""What Envoys acknowledged and refused, kept over a restart of the program."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from xds.scope import Scope
from xds.server import Server
from xdserve.settings import Settings
from xdserve.store import Keeper, Store

FILE = "last-good.sqlite"
CLOSE_SECONDS = 2.0


class LastGood:
    """The store of last good versions between a server and a file; does nothing where it is switched off.

    Args:
        settings: whether and where there is one.
        server: whose gateways are remembered.
    """

    def __init__(self, settings: Settings, server: Server) -> None:
        self._server = server
        self._keeper: Keeper | None = None
        self._restored: set[str] = set()
        self._path = settings.state_path / FILE if settings.last_good and settings.state_path else None

    @property
    def failures(self) -> int:
        """Writes that failed."""
        return self._keeper.failures if self._keeper else 0

    def open(self) -> None:
        """Give the server what an earlier one knew; to be called before anything is published."""
        store = Store.open(self._path) if self._path else None
        if store is None:
            return
        for gateway, memories in store.load().items():
            self._server.restore(gateway, memories)
            self._restored.add(gateway)
        self._keeper = Keeper(store, self._changed)

    def settle(self, gateways: Collection[str]) -> None:
        """All is read: what an earlier server knew of gateways that are no more is forgotten."""
        for gateway in self._restored.difference(gateways):
            self._server.forget(gateway)
        self._restored.clear()

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        if self._keeper:
            await self._keeper.run()

    async def close(self) -> None:
        """Write what is left."""
        if self._keeper:
            await self._keeper.close(CLOSE_SECONDS)

    def _changed(self) -> Mapping[str, Scope]:
        changed = self._server.changed_scopes()
        for gateway, scope in changed.items():
            if scope is None and self._keeper:
                self._keeper.forget(gateway)
        return {gateway: scope for gateway, scope in changed.items() if scope is not None}
