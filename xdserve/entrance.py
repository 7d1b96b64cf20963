"""Who may connect to the xDS port, and how, as the settings have it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import structlog

from xds.credentials import Credentials, TokenFile
from xds.identity import AnyOf, Authenticator, CertificateAuthenticator
from xds.server import Limits
from xds.session import Terms
from xdserve.settings import Settings

logger = structlog.get_logger("xdserve.credentials")


def _nothing() -> None:
    """Nobody counts."""


class EntranceError(OSError):
    """A certificate, a key or the tokens cannot be used; the text is one line that names the file."""


def terms(settings: Settings) -> Terms:
    """What all sessions have in common."""
    return Terms(identifier=socket.gethostname(), linger=settings.linger, patience=settings.patience)


def limits(settings: Settings) -> Limits:
    """What clients may take."""
    return Limits(admission_rate=settings.admission_rate, connection_age=settings.connection_age)


def credentials(
    settings: Settings,
    failed: Callable[[], None] = _nothing,
    pair: tuple[Path, Path] | None = None,
    *,
    begun: Callable[[], None] = _nothing,
) -> grpc.ServerCredentials | None:
    """TLS, read again when its files change; None for plain text. `failed` is called when they cannot be used then.

    Args:
        settings: have a certificate and its key, or not.
        failed: see above.
        pair: certificate and key that stand instead of those.
        begun: is called for each handshake as it begins, whatever becomes of it.

    Raises:
        EntranceError: a file cannot be used.
    """
    certificate, key = pair or (settings.xds_cert, settings.xds_key)
    if certificate is None or key is None:
        return None
    try:
        made = Credentials(
            certificate=certificate,
            key=key,
            client_ca=settings.xds_client_ca,
            report=_report(failed),
            begun=begun,
        )
    except (OSError, ValueError) as error:
        raise EntranceError(str(error)) from error
    return made.server_credentials()


def authenticator(
    settings: Settings, failed: Callable[[], None] = _nothing, more: Sequence[Authenticator] = ()
) -> Authenticator | None:
    """Who tells what gateway a peer is of: its token or its certificate; None where everybody may ask for everything.

    `failed` is called when the file of tokens has changed and cannot be used; `more` are asked too.

    Raises:
        EntranceError: the file of tokens cannot be used.
    """
    try:
        known = [*_authenticators(settings, failed), *more]
    except (OSError, ValueError) as error:
        raise EntranceError(str(error)) from error
    return AnyOf(known) if known else None


def _authenticators(settings: Settings, failed: Callable[[], None]) -> Iterator[Authenticator]:
    if settings.xds_tokens is not None:
        yield TokenFile(settings.xds_tokens, report=_report(failed))
    if settings.xds_client_ca is not None:
        yield CertificateAuthenticator(settings.trust_domain)


def _report(failed: Callable[[], None]) -> Callable[[int, str], None]:
    def report(level: int, line: str) -> None:
        if level >= logging.ERROR:
            failed()
        logger.log(level, line)

    return report
