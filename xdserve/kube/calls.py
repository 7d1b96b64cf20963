"""One request to the apiserver, as plain JSON: for what writes, and knows its objects as documents alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException

from xdserve.kube.course import LONGEST_ASKED

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON = "application/json"

REQUEST_SECONDS = 10.0
_LONGEST = 500


class CallError(Exception):
    """The apiserver said no; `status` is its HTTP status, 0 where it did not answer at all.

    `retry_after` are the seconds that it asks to wait, if it does.
    """

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status or 'no answer'}: {message}")
        self.status = status
        self.retry_after = retry_after


class Caller(Protocol):
    """Makes a request and gives the decoded answer."""

    async def __call__(  # noqa: PLR0913 - what a request is
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> dict[str, Any]:
        """Raises `CallError`."""
        ...


class Calls:
    """Makes requests by a client of `kubernetes.aio`, whose credentials and connections they use."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def __call__(  # noqa: PLR0913 - what a request is
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> dict[str, Any]:
        """The decoded answer, an object.

        Raises:
            CallError: it was refused, or there was no answer in time.
        """
        headers = {"Accept": JSON, "Content-Type": content_type}
        try:
            request = await self._client.param_serialize(
                method, path, None, list((query or {}).items()), headers, body, auth_settings=["BearerToken"]
            )
            called = await self._client.call_api(*request, _request_timeout=aiohttp.ClientTimeout(total=seconds))
            answer: aiohttp.ClientResponse = called.response
            data = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError, ConfigException) as error:
            raise CallError(0, str(error) or type(error).__name__) from error
        if answer.status >= 400:
            raise CallError(answer.status, _said(data), _seconds(answer.headers.get("Retry-After")))
        return _object(answer.status, data)


def _object(status: int, data: bytes) -> dict[str, Any]:
    """An answer that is no object is none: what stands before an apiserver that is away may say anything."""
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise CallError(0, f"status {status}, and no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CallError(0, f"status {status}, and no object: {_said(data)}")
    return found


def _said(data: bytes) -> str:
    """The message of a `Status`, else the text."""
    text = data.decode(errors="replace")
    try:
        return str(json.loads(text)["message"])[:_LONGEST]
    except (ValueError, KeyError, TypeError):
        return text[:_LONGEST]


def _seconds(header: str | None) -> float:
    """Not longer than a reflector waits: what stands before an apiserver may ask for a day of silence."""
    return min(float(header), LONGEST_ASKED) if header and header.isdecimal() else 0.0
