"""Who a gateway's pod is: its projected ServiceAccount token, which the apiserver reviews (TokenReview).

An answer is remembered for a short while by the token's digest: Envoys that come again all at once must not become as
many requests. While the apiserver does not answer, a good answer counts to the token's own end: an Envoy that starts
again then is to get its configuration.

Anybody can write a token that says anything, so strangers are kept cheap: what by its own words is no token for us, or
is none of a gateway's ServiceAccount, is turned away unasked; what claims to be one waits in a bounded queue, apart
from tokens that have been good; and bad answers push out no good ones.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import structlog

from bootstrap.manifests import AUDIENCE
from xds.identity import Denied, Peer, Undecided, Unproven
from xdserve.kube.calls import Caller, CallError

logger = structlog.get_logger("xdserve.tokens")

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
GOOD_SECONDS = 60.0
"""How long a token that has been withdrawn (its pod is gone) may still be believed."""
BAD_SECONDS = 5.0
REVIEW_SECONDS = 5.0
"""Less than a peer is waited for, so that one that was good before is let in while the apiserver says nothing."""
_REVIEWS_AT_ONCE = 16
_WAITING = 1_000
"""Tokens never seen before that are asked about or wait for it; others are to come again."""
_WAITING_OF_ONE = 100
"""Of those, the ones that claim to be of one account: who poses as it is to hold up no other."""
_REMEMBERED = 20_000
_REMEMBERED_BAD = 5_000
_LONGEST = 16 << 10
_NEVER = 1e15
"""Seconds since 1970 that no token is good for; a number of JSON can be larger than any of a clock."""
_PREFIX = "system:serviceaccount:"

GatewayOf = Callable[[str, str], str | None]
"""The gateway (``<namespace>/<name>``) whose pods have a ServiceAccount (namespace, name); None if there is none."""


class ReviewError(Undecided):
    """It cannot be told now whose a token is; the peer is to come again. `away`: the apiserver does not answer."""

    def __init__(self, message: str, *, away: bool) -> None:
        super().__init__(message)
        self.away = away


class Account(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    name: str


class _Claim(NamedTuple):
    """What a token says of itself: whose it is, and when it ends (seconds since 1970)."""

    account: Account
    expires: float


class _Answer(NamedTuple):
    """What is remembered of a good token: whose it is, and until when that is not asked again."""

    account: Account
    until: float


V = TypeVar("V")


class _Newest(dict[bytes, V]):
    """The newest so many, by digests of tokens."""

    def remember(self, digest: bytes, value: V, most: int) -> None:
        self.pop(digest, None)
        while len(self) >= most:
            del self[next(iter(self))]
        self[digest] = value


class TokenReviews:
    """Identifies peers by ServiceAccount tokens. All in one event loop.

    Args:
        call: makes requests; needs the verb `create` on `tokenreviews`.
        gateway_of: see there; asked each time, so it may change.
        audience: whom tokens have to be for.
        clock: seconds, monotonic.
        now: seconds since 1970, which is what tokens expire by.
    """

    def __init__(
        self,
        call: Caller,
        gateway_of: GatewayOf,
        *,
        audience: str = AUDIENCE,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._call = call
        self._gateway_of = gateway_of
        self._audience = audience
        self._clock, self._now = clock, now
        self._good: _Newest[_Answer] = _Newest()
        self._bad: _Newest[float] = _Newest()
        self._asked: dict[bytes, asyncio.Task[Account | None]] = {}
        self._waiting: Counter[Account] = Counter()
        self._slots, self._slots_of_known = (asyncio.Semaphore(_REVIEWS_AT_ONCE) for _ in range(2))

    async def identify(self, peer: Peer) -> frozenset[str]:
        """The one gateway whose pods have the token's ServiceAccount.

        Raises:
            Unproven: the peer has no token.
            Denied: UNAUTHENTICATED if the token is not good, or PERMISSION_DENIED if it is no gateway's.
            ReviewError: the apiserver does not say.
        """
        if peer.token is None:
            raise Unproven("no bearer token in authorization")
        claim = self._claim(peer.token)
        if claim is not None:
            self._gateway(claim.account)
        account = await self._account(peer.token, claim) if claim else None
        if account is None:
            raise Denied("UNAUTHENTICATED", f"the bearer token is not a valid one for the audience {self._audience}")
        return frozenset({self._gateway(account)})

    def _gateway(self, account: Account) -> str:
        gateway = self._gateway_of(*account)
        if gateway is None:
            raise Denied("PERMISSION_DENIED", f"ServiceAccount {account.namespace}/{account.name} is no gateway's")
        return gateway

    async def _account(self, token: str, claim: _Claim) -> Account | None:
        """Whose a token is by the apiserver's word, now or a moment ago; None for nobody's."""
        digest = sha256(token.encode()).digest()
        held = self._good.get(digest)
        if held is not None and self._clock() < held.until:
            return held.account
        if self._clock() < self._bad.get(digest, 0.0):
            return None
        asked = self._asked.get(digest)
        if asked is None:
            full = len(self._asked) >= _WAITING or self._waiting[claim.account] >= _WAITING_OF_ONE
            if held is None and full:
                raise ReviewError("too many tokens wait for their review", away=False)
            asked = self._asked[digest] = asyncio.create_task(self._ask(digest, token, claim.expires))
            self._waiting[claim.account] += 1
            asked.add_done_callback(lambda task: self._done(digest, claim.account, task))
        return await asyncio.shield(asked)

    def _done(self, digest: bytes, account: Account, task: asyncio.Task[Account | None]) -> None:
        del self._asked[digest]
        self._waiting[account] -= 1
        if not self._waiting[account]:
            del self._waiting[account]
        if not task.cancelled():
            task.exception()  # nobody may have waited for it to the end

    async def _ask(self, digest: bytes, token: str, expires: float) -> Account | None:
        """Others may wait for the same answer, so who asked first may leave."""
        held = self._good.get(digest)
        try:
            async with asyncio.timeout(REVIEW_SECONDS), self._slots_of_known if held else self._slots:
                account = await self._review(token)
        except (ReviewError, TimeoutError) as error:
            if held is not None and (isinstance(error, TimeoutError) or error.away):
                return held.account
            if isinstance(error, TimeoutError):
                raise ReviewError("the apiserver does not review tokens in time", away=True) from error
            raise
        self._remember(digest, account, expires)
        return account

    async def _review(self, token: str) -> Account | None:
        spec = {"token": token, "audiences": [self._audience]}
        document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        try:
            status = (await self._call("POST", REVIEWS, document)).get("status") or {}
        except CallError as error:
            busy = error.status == HTTPStatus.TOO_MANY_REQUESTS  # as it is when it comes back
            away = error.status == 0 or busy or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            raise ReviewError(f"the apiserver does not review tokens: {error}", away=away) from error
        if status.get("authenticated") is not True:
            # A review that failed itself looks like a bad token, but for this text.
            logger.debug("token refused", cause=status.get("error", ""))
            return None
        # An authenticator that knows no audiences leaves them out, and then any of the cluster's tokens would do.
        if self._audience not in status.get("audiences", ()):
            return None
        return _account(status.get("user", {}).get("username", ""))

    def _remember(self, digest: bytes, account: Account | None, expires: float) -> None:
        if account is None:
            self._good.pop(digest, None)
            self._bad.remember(digest, self._clock() + BAD_SECONDS, _REMEMBERED_BAD)
            return
        until = self._clock() + min(GOOD_SECONDS, expires - self._now())
        self._good.remember(digest, _Answer(account, until), _REMEMBERED)

    def _claim(self, token: str) -> _Claim | None:
        """What a token says of itself; None if by its own words it is none of a ServiceAccount for us now."""
        claims = _claims(token)
        audiences, expires = claims.get("aud"), claims.get("exp")
        listed = [audiences] if isinstance(audiences, str) else audiences
        if not isinstance(listed, list) or self._audience not in listed:
            return None
        if isinstance(expires, bool) or not isinstance(expires, int | float) or not self._now() < expires < _NEVER:
            return None
        account = _account(claims.get("sub"))
        return _Claim(account, float(expires)) if account else None


def _claims(token: str) -> dict[str, Any]:
    """What a JSON Web Token (RFC 7519) says of itself, unproven; nothing if it is none."""
    parts = token.split(".")
    if len(token) > _LONGEST or len(parts) != 3:
        return {}
    try:
        found = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _account(user: object) -> Account | None:
    if not isinstance(user, str) or not user.startswith(_PREFIX):
        return None
    namespace, _, name = user.removeprefix(_PREFIX).partition(":")
    return Account(namespace, name) if namespace and name else None
