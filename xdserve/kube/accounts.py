"""Lets in only those whose ServiceAccount xdserve has made, where it makes the gateways' pods.

A ServiceAccount of a gateway's name that is somebody else's is never taken over, and its pods are not the gateway's.
Each replica sees that for itself: what keeps a gateway from being made, the leader alone knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus

from bootstrap.manifests import labels
from translator import names
from translator.objects.ref import Ref
from xds.identity import Authenticator, Denied, Peer
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.wanted import ours

GOOD_SECONDS = 60.0
BAD_SECONDS = 5.0
LOOK_SECONDS = 3.0
"""With what a token's review may take, less than a peer is waited for: an apiserver that is silent keeps nobody out."""
_REMEMBERED = 20_000


class OwnAccounts:
    """Identifies peers as another authenticator does, if the gateway's ServiceAccount is xdserve's.

    Args:
        identified: by their ServiceAccounts' tokens.
        call: makes requests; needs the verb `get` on `serviceaccounts`. What it cannot tell keeps nobody out but those
            who were kept out before.
        target_of: the target of a gateway.
        release: whose ServiceAccounts count.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        identified: Authenticator,
        call: Caller,
        target_of: Callable[[str], Ref | None],
        release: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identified, self._call, self._target_of, self._release = identified, call, target_of, release
        self._clock = clock
        self._known: dict[Ref, tuple[bool, float]] = {}

    async def identify(self, peer: Peer) -> frozenset[str]:
        """The gateways that the peer may ask for.

        Raises:
            Unproven, Denied: as the other does; and PERMISSION_DENIED for a ServiceAccount that is not xdserve's.
        """
        found = await self._identified.identify(peer)
        for target in filter(None, map(self._target_of, found)):
            if not await self._made(target):
                account = f"ServiceAccount {target.namespace}/{names.entrance(target)}"
                raise Denied("PERMISSION_DENIED", f"{account} is not xdserve's, so its pods are no gateway's")
        return found

    async def _made(self, target: Ref) -> bool:
        made, until = self._known.get(target, (True, 0.0))
        if self._clock() < until:
            return made
        try:
            made = await self._look(target)
        except CallError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                return made  # as it was when it was seen last
            made = False
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[target] = made, self._clock() + (GOOD_SECONDS if made else BAD_SECONDS)
        return made

    async def _look(self, target: Ref) -> bool:
        path = f"/api/v1/namespaces/{target.namespace}/serviceaccounts/{names.entrance(target)}"
        found = await self._call("GET", path, seconds=LOOK_SECONDS)
        return ours({"metadata": {"labels": labels(target, self._release)}}, found)
