"""Who may connect to the xDS port, and how, as the settings have it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import structlog

from xds.credentials import Credentials, TokenFile
from xds.identity import AnyOf, Authenticator, CertificateAuthenticator
from xds.server import Limits
from xds.session import Terms
from xdserve.settings import Settings

logger = structlog.get_logger("xdserve.credentials")


class EntranceError(OSError):
    """A certificate, a key or the tokens cannot be used; the text is one line that names the file."""


def terms(settings: Settings) -> Terms:
    """What all sessions have in common."""
    return Terms(identifier=socket.gethostname(), linger=settings.linger, patience=settings.patience)


def limits(settings: Settings) -> Limits:
    """What clients may take."""
    return Limits(admission_rate=settings.admission_rate, connection_age=settings.connection_age)


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """TLS, read again when its files change; None for plain text.

    Raises:
        EntranceError: a file cannot be used.
    """
    if settings.xds_cert is None or settings.xds_key is None:
        return None
    try:
        made = Credentials(
            certificate=settings.xds_cert, key=settings.xds_key, client_ca=settings.xds_client_ca, report=_report
        )
    except (OSError, ValueError) as error:
        raise EntranceError(str(error)) from error
    return made.server_credentials()


def authenticator(settings: Settings) -> Authenticator | None:
    """Who tells what gateway a peer is of: its token or its certificate; None where everybody may ask for everything.

    Raises:
        EntranceError: the file of tokens cannot be used.
    """
    try:
        known = list(_authenticators(settings))
    except (OSError, ValueError) as error:
        raise EntranceError(str(error)) from error
    return AnyOf(known) if known else None


def _authenticators(settings: Settings) -> Iterator[Authenticator]:
    if settings.xds_tokens is not None:
        yield TokenFile(settings.xds_tokens, report=_report)
    if settings.xds_client_ca is not None:
        yield CertificateAuthenticator(settings.trust_domain)


def _report(level: int, line: str) -> None:
    logger.log(level, line)
