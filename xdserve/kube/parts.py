"""The objects that gateways are made of, on the apiserver: read, applied and deleted while this replica leads."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bootstrap.manifests import Manifest, owned
from translator.objects.ref import Ref
from xdserve.kube.calls import APPLY, JSON, Caller, CallError
from xdserve.kube.pace import Pace
from xdserve.kube.wanted import Found, essence, key, target_of, title

FIELD_MANAGER = "xdserve"
_PAGE = 500
_NOT_FOUND, _CONFLICT = 404, 409
_WRITES = frozenset({"apply", "delete"})
"""What is paced. Before a gateway is made each of its objects is looked for once, which costs the apiserver little."""

_ROOTS = {
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
}
KINDS = tuple(_ROOTS)
LISTED = tuple(kind for kind in KINDS if kind != "ConfigMap")
"""ConfigMaps are read by name: to list them would be to read those of others."""


class Trouble(Exception):
    """Why a gateway cannot be made, in one line for its owner; `status` is the apiserver's, 0 if it is not its word."""

    def __init__(self, message: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Lost(Exception):
    """Another replica leads now, or none."""


class Listing(Mapping[tuple[str, str, str], Found]):
    """Objects by kind, namespace and name; held as text, which is a quarter as large, and read one by one."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str, str], bytes] = {}
        self.targets: set[Ref] = set()
        """Whose they are."""

    def add(self, found: Found) -> None:
        """Hold one more."""
        self._texts[key(found)] = json.dumps(found, separators=(",", ":")).encode()
        if target := target_of(found):
            self.targets.add(target)

    def __getitem__(self, name: tuple[str, str, str]) -> Found:
        found: dict[str, Any] = json.loads(self._texts[name])
        return found

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class Parts:
    """Makes requests, and counts them.

    Args:
        call: makes a request.
        release: whose objects are listed.
        held: whether this replica leads at this moment.
        pace: bounds the rate of writes.
        namespaces: those that are listed; empty for all.

    Every method raises `Trouble` if the apiserver does not do it, and `Lost` if this replica does not lead.
    """

    def __init__(
        self, call: Caller, release: str, held: Callable[[], bool], pace: Pace, namespaces: Sequence[str] = ()
    ) -> None:
        self.requests: Counter[str] = Counter()
        self._call, self._release, self._held, self._pace = call, release, held, pace
        self._namespaces = tuple(namespaces)

    async def listed(self) -> Listing:
        """All objects that xdserve has made, but for ConfigMaps."""
        found = Listing()
        for kind in LISTED:
            for path in self._collections(kind):
                await self._pages(kind, path, found)
        return found

    async def get(self, manifest: Manifest) -> Found | None:
        """What is called like a manifest; None if there is none."""
        try:
            return await self._of("get", "GET", manifest)
        except Trouble as trouble:
            if trouble.status == _NOT_FOUND:
                return None
            raise

    async def apply(self, manifest: Manifest) -> Found:
        """Server-side apply; fields that others have taken are taken back. What there is then."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._of("apply", "PATCH", manifest, manifest, query=query, content_type=APPLY)

    async def delete(self, manifest: Manifest, found: Found) -> bool:
        """Delete what is called like a manifest, if it is still as it was `found`; whether it is gone."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        seen = {name: found["metadata"][name] for name in ("uid", "resourceVersion") if name in found["metadata"]}
        try:
            await self._of("delete", "DELETE", manifest, options | {"preconditions": seen})
        except Trouble as trouble:
            if trouble.status not in {_NOT_FOUND, _CONFLICT}:
                raise
            return trouble.status == _NOT_FOUND
        return True

    def _collections(self, kind: str) -> Iterator[str]:
        root, plural = _ROOTS[kind]
        if not self._namespaces:
            yield f"{root}/{plural}"
        for namespace in self._namespaces:
            yield f"{root}/namespaces/{namespace}/{plural}"

    async def _pages(self, kind: str, path: str, found: Listing) -> None:
        query = {"labelSelector": owned(self._release), "limit": str(_PAGE)}
        version = _ROOTS[kind][0].removeprefix("/apis/").removeprefix("/api/")
        while True:
            answer = await self._request("list", "GET", path, query=query)
            if "items" not in answer:
                raise Trouble(f"{path}: the answer is no list")  # of what stands before an apiserver that is away
            # The items of a list do not say what they are.
            for one in answer.pop("items", None) or ():
                found.add(essence(one) | {"kind": kind, "apiVersion": version})
                await asyncio.sleep(0)
            query["continue"] = (answer.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return

    async def _of(self, what: str, method: str, manifest: Manifest, body: object = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as `_request`
        kind, namespace, name = key(manifest)
        root, plural = _ROOTS[kind]
        path = f"{root}/namespaces/{namespace}/{plural}/{name}"
        return await self._request(what, method, path, body, title=title(manifest), **more)

    async def _request(  # noqa: PLR0913 - what a request is
        self,
        what: str,
        method: str,
        path: str,
        body: object = None,
        *,
        title: str = "",
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        if what in _WRITES:
            await self._pace.turn()
        if not self._held():
            raise Lost
        self.requests[what] += 1
        try:
            return await self._call(method, path, body, query=query, content_type=content_type)
        except CallError as error:
            raise Trouble(f"{title or path}: {error}", error.status, error.retry_after) from error
