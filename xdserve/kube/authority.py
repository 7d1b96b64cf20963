"""The certificate of the xDS port on Kubernetes: from a Secret that xdserve keeps itself, or from files that are given.

Every replica reads the Secret and has the server's certificate as files, which TLS reads again when they change; only
the leader renews it. The first one is made by whoever comes first: nothing is served before there is one. The chart
makes the Secret empty, so that xdserve needs no right to create Secrets.
"""

from __future__ import annotations

import asyncio
import shutil
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from bootstrap.address import Address
from translator import names
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.material import (
    AUTHORITIES,
    BUNDLE,
    CERTIFICATE,
    KEY,
    Material,
    MaterialError,
    from_data,
    renewed,
    to_data,
)

logger = structlog.get_logger("xdserve.authority")

SECRET = names.authority("xdserve")
LOOK_SECONDS = 30.0
RETRY_SECONDS = 2.0
_EMPTY = (
    "to start anew, empty it: kubectl -n {namespace} patch secret {secret} --type=json "
    """-p '[{{"op": "remove", "path": "/data"}}]'"""
)
_SERVED = (BUNDLE, CERTIFICATE, KEY)
_SVC = ".svc"


def names_of(address: Address, cluster_domain: str) -> tuple[str, ...]:
    """The names that a server has which gateways reach at an address: those of its Service in full and in short."""
    host = address.canonical_host
    return (host.removesuffix(_SVC), host, f"{host}.{cluster_domain}") if host.endswith(_SVC) else (host,)


class Authority:
    """Keeps the server's certificate.

    Args:
        call: makes requests.
        namespace: where the Secret is: that of the release.
        names: that the server is reached by; see `names_of`.
        folder: a directory of this process alone, for the files; made if need be.
        held: whether this replica leads now.
        changed: called when `bundle` is another.
        secret: its name.
        now: the time.
    """

    def __init__(  # noqa: PLR0913 - what an authority is made of
        self,
        call: Caller,
        namespace: str,
        names: Sequence[str],
        folder: Path,
        *,
        held: Callable[[], bool],
        changed: Callable[[], None] = lambda: None,
        secret: str = SECRET,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.bundle = ""
        """The authorities that gateways are to believe (PEM); empty until `ready`."""
        self._call = call
        self._path = f"/api/v1/namespaces/{namespace}/secrets"
        self._title = f"Secret {namespace}/{secret}"
        self._namespace, self._secret = namespace, secret
        self._names = tuple(names)
        self._files = _Files(folder)
        self._held, self._changed, self._now = held, changed, now
        self._trouble = ""

    @property
    def certificate(self) -> Path:
        """The file of the server's certificate (PEM), for `xds.credentials`; there when `ready` has returned."""
        return self._files.path(CERTIFICATE)

    @property
    def key(self) -> Path:
        """The file of its key (PEM)."""
        return self._files.path(KEY)

    async def ready(self) -> None:
        """Wait until there is a certificate, however long it takes; why it takes long is logged."""
        waits = False
        while not await self.look():
            if not waits:
                logger.warning("waiting for a certificate: alive, and not ready", secret=self._title)
            waits = True
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Follow the Secret, and renew it while this replica leads, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> bool:
        """Read the Secret, do one step of what is due, and use what it has; whether there is a certificate."""
        try:
            self._use(await self._data())
        except (CallError, MaterialError, OSError) as error:
            if _kind(error) != self._trouble:
                logger.error("no new certificate", secret=self._title, cause=str(error))  # noqa: TRY400 - one line
            self._trouble = _kind(error)
        else:
            self._trouble = ""
        return bool(self.bundle)

    async def _data(self) -> Mapping[str, str]:
        found = await self._read()
        material = self._material(found) if found and found.get("data") else None
        wanted = renewed(material, self._names, self._now())
        if wanted is not material and (material is None or self._held()):
            return _texts(await self._write(wanted, found))
        return _texts(found or {})

    def _material(self, found: Mapping[str, Any]) -> Material:
        try:
            return from_data(_texts(found))
        except MaterialError as error:
            # To delete it would not do: the chart's roles let it be filled, and not be made.
            empty = _EMPTY.format(namespace=self._namespace, secret=self._secret)
            hint = empty if AUTHORITIES in (found.get("data") or {}) else "it is not xdserve's"
            raise MaterialError(f"{error}; {hint}") from None

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._call("GET", f"{self._path}/{self._secret}")
        except CallError as error:
            if error.status == 404:
                return None
            raise

    async def _write(self, material: Material, found: dict[str, Any] | None) -> dict[str, Any]:
        """Make or change it; where another was faster, take what is there."""
        document = self._document(material, found)
        try:
            if found is None:
                written = await self._call("POST", self._path, document)
            else:
                written = await self._call("PUT", f"{self._path}/{self._secret}", document)
        except CallError as error:
            there = await self._read() if error.status == 409 else None
            if there is None:
                raise
            self._material(there)
            return there
        logger.info("certificate renewed", secret=self._title)
        return written

    def _document(self, material: Material, found: dict[str, Any] | None) -> dict[str, Any]:
        data = {name: b64encode(text.encode()).decode() for name, text in to_data(material).items()}
        if found is not None:
            return found | {"data": data}
        labels = {"app.kubernetes.io/managed-by": "xdserve", "app.kubernetes.io/component": "authority"}
        metadata = {"name": self._secret, "namespace": self._namespace, "labels": labels}
        return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}

    def _use(self, data: Mapping[str, str]) -> None:
        missing = [name for name in _SERVED if not data.get(name, "").strip()]
        if missing:
            raise MaterialError(f"{', '.join(missing)} missing")
        self._files.write({name: data[name] for name in (CERTIFICATE, KEY)})
        if data[BUNDLE] != self.bundle:
            self.bundle = data[BUNDLE]
            self._changed()


class CertificateFiles:
    """A certificate that somebody else keeps, as files: cert-manager's Secret, mounted. The face of `Authority`.

    Args:
        certificate: of the server and those between it and its authority (PEM).
        key: its key (PEM).
        ca: the authorities that gateways are to believe (PEM).
        changed: called when `bundle` is another.
    """

    def __init__(self, certificate: Path, key: Path, ca: Path, *, changed: Callable[[], None] = lambda: None) -> None:
        self.bundle = ""
        self.certificate, self.key = certificate, key
        self._ca, self._changed = ca, changed
        self._trouble = ""

    async def ready(self) -> None:
        """Wait until there is a file of authorities."""
        while True:
            if self.look():
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Follow the file of authorities until cancelled; the others are followed by TLS itself."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> bool:
        """Read the file; whether there are authorities."""
        try:
            text = self._ca.read_text()
            if "BEGIN CERTIFICATE" not in text:
                raise MaterialError("no certificate in PEM")
        except (OSError, ValueError) as error:
            if str(error) != self._trouble:
                logger.error("no authorities for gateways", file=str(self._ca), cause=str(error))  # noqa: TRY400 - one line
            self._trouble = str(error)
            return bool(self.bundle)
        self._trouble = ""
        if text != self.bundle:
            self.bundle = text
            self._changed()
        return True


class _Files:
    """Files that change all at once: behind a link that is swapped, as a kubelet does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: Mapping[str, str] | None = None
        self._number = 0

    def path(self, name: str) -> Path:
        return self._folder / "..data" / name

    def write(self, files: Mapping[str, str]) -> None:
        if files == self._held:
            return
        number = self._number + 1
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        real, link = self._folder / f"..{number}", self._folder / "..new"
        shutil.rmtree(real, ignore_errors=True)
        real.mkdir(mode=0o700)
        for name, text in files.items():
            path = real / name
            path.touch(mode=0o600)
            path.write_text(text)
        link.unlink(missing_ok=True)
        link.symlink_to(real.name)
        link.rename(self._folder / "..data")
        # Who reads meanwhile has opened what it reads.
        shutil.rmtree(self._folder / f"..{self._number}", ignore_errors=True)
        self._number, self._held = number, dict(files)


def _kind(error: CallError | MaterialError | OSError) -> str:
    """What is the same trouble is told once: an apiserver that is away is so in other words each time."""
    return "away" if isinstance(error, CallError) and error.status == 0 else str(error)


def _texts(secret: Mapping[str, Any]) -> dict[str, str]:
    try:
        return {name: b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}
    except (Base64Error, ValueError):
        raise MaterialError("it holds what is no text") from None
