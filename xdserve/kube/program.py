"""The part of a program that is on Kubernetes alone: who leads, status, Events, gateways, their identity, an authority.

Imported where the source is a cluster, and not else: what speaks to Kubernetes is large.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from bootstrap.address import Address
from bootstrap.manifests import Deploying
from translator import names
from translator.objects import ConfigMap, Inference, InferenceService, Service
from translator.objects.gateway import ServiceGateway
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import XDSERVE, Ref
from translator.plan import Finding, Reason
from translator.view import Absent, Named
from xds.identity import Authenticator
from xds.observer import Observer
from xdserve import app
from xdserve.conditions import Delivery, connected
from xdserve.kube.accounts import OwnAccounts
from xdserve.kube.authority import Authority, CertificateFiles, names_of
from xdserve.kube.calls import Calls
from xdserve.kube.client import ACCOUNT, Client, ClusterUnknown, connect
from xdserve.kube.config_maps import ConfigMaps, reference
from xdserve.kube.events import Recorder
from xdserve.kube.figures import show_following, show_gateways, show_reading, show_replica, show_writing
from xdserve.kube.leader import Leadership
from xdserve.kube.listening import Listening
from xdserve.kube.progress import ProgressObserver
from xdserve.kube.provision import Provisioner
from xdserve.kube.reports import CONFIG_MAPS, Elsewhere, Reporter, exchange
from xdserve.kube.resources import RESOURCES
from xdserve.kube.source import KubernetesSource
from xdserve.kube.starting import Starting
from xdserve.kube.status import StatusWriter
from xdserve.kube.tokens import TokenReviews
from xdserve.kube.wanted import Wanted, wanted, wants
from xdserve.ledger import Entry
from xdserve.metrics import KubernetesMetrics
from xdserve.settings import Provision, Settings
from xdserve.sources import Change, Feed, Put
from xdserve.surroundings import ObjectSource, Parts

logger = structlog.get_logger("xdserve")

PROVISION_ERRORS = "gateway"
WANTING = tuple(one for one in RESOURCES if one.kind in {TrafficPolicy.KIND, ServiceGateway.KIND})
"""What can want a gateway for a target."""
_WANTING_KINDS = frozenset(one.kind for one in WANTING)
_NO_NAME = re.compile(r"[^a-z0-9.-]+")


class Replica(NamedTuple):
    """Which of several this is: its pod, as the downward API tells it. Without one, as for trials, the machine."""

    name: str
    namespace: str
    uid: str = ""

    @property
    def owner(self) -> dict[str, str] | None:
        """A reference that makes objects go with the pod."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid} if self.uid else None


def replica(environment: Mapping[str, str]) -> Replica:
    """This one."""
    name = _NO_NAME.sub("-", environment.get("POD_NAME", socket.gethostname()).lower())[:180].strip("-.")
    return Replica(name, environment.get("POD_NAMESPACE") or _namespace(), environment.get("POD_UID", ""))


def _namespace() -> str:
    try:
        return (ACCOUNT / "namespace").read_text().strip()
    except OSError:
        return "default"


async def serve(settings: Settings) -> int:
    """Run on a cluster until told to stop; the exit code."""
    try:
        client = await connect(settings.kubeconfig)
    except ClusterUnknown as error:
        logger.error("cannot start", cause=str(error))  # noqa: TRY400  one line says it all
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="xdserve-") as folder:
            return await app.run(settings, OnKubernetes(client, settings, replica(os.environ), Path(folder)))
    finally:
        await client.close()


class OnKubernetes:
    """The surroundings of a program whose objects come from a cluster.

    Args:
        client: how the apiserver is reached; who made it closes it.
        settings: of the program.
        me: which replica this is.
        folder: a directory of this process alone, for the certificate.
    """

    def __init__(self, client: Client, settings: Settings, me: Replica, folder: Path) -> None:
        self._client, self._settings, self._me = client, settings, me
        self._call = Calls(client)
        identity = f"{me.name}_{secrets.token_hex(4)}"
        self._leadership = Leadership(self._call, me.namespace, identity, name=settings.release)
        self._deploying = Deploying(
            xds_address=_xds_address(settings, me.namespace),
            ca="",
            image=settings.gateway_image,
            router_image=settings.router_image,
            pull_secrets=settings.gateway_pull_secrets,
            release=settings.release,
            replicas=settings.gateway_replicas,
        )
        bounded = self._leadership.bounded(self._call)
        self._starting = Starting(bounded, self._leadership, self, settings.release, pods=settings.gateway_pods)
        self._provisioner = Provisioner(
            bounded,
            self._deploying,
            self._leadership,
            readable=self._readable,
            settled=lambda: self._parts.pipeline.idle,
            listens=self._listens,
            looked=self._starting.looked,
            told=self._told,
            namespaces=settings.namespaces,
        )
        self._authority = self._authorities(folder)
        report = names.report(settings.release, me.name)
        self._elsewhere = Elsewhere(client, me.namespace, report, self._heard)
        self._recorder = Recorder(self._call, me.name, held=lambda: self._leadership.held)
        self._report = report
        self._of_kserve = reference(settings.kserve_config_map)
        self._named = Named((ConfigMap.KIND,), filter(None, (self._of_kserve,)))
        self._opened = asyncio.Event()
        self._failed: set[Ref] = set()
        self._broken: set[Ref] = set()

    def _authorities(self, folder: Path) -> Authority | CertificateFiles:
        given = self._settings
        if given.xds_cert and given.xds_key and given.xds_ca:
            return CertificateFiles(given.xds_cert, given.xds_key, given.xds_ca, changed=self._believed)
        return Authority(
            self._call,
            self._me.namespace,
            names_of(self._deploying.xds_address, given.cluster_domain),
            folder / "certificate",
            held=lambda: self._leadership.held,
            changed=self._believed,
            secret=names.authority(given.release),
        )

    def _believed(self) -> None:
        """Gateways are to believe other authorities."""
        self._provisioner.deploy(replace(self._deploying, ca=self._authority.bundle))

    # -- What it brings to the program ---------------------------------------------------------------------------

    def observer(self, observer: Observer) -> Observer:
        """One that also follows how far Envoys have come."""
        return ProgressObserver(observer, self._moved)

    def authenticators(self) -> Sequence[Authenticator]:
        """Who knows gateways by their ServiceAccounts' tokens."""
        reviews = TokenReviews(self._call, self._provisioner.gateway_of)
        if self._settings.provision is Provision.OFF:
            return (reviews,)
        return (OwnAccounts(reviews, self._call, self._target_of, self._settings.release),)

    def elsewhere(self, gateway: str) -> Sequence[Delivery]:
        """What other replicas say of a gateway."""
        return self._elsewhere.of(gateway)

    def wanted(self, target: Ref) -> bool | None:
        """Whether a target is to have a gateway; None where others make them, and it does not say."""
        found, unit = self._parts.pipeline.objects.get(target), self._parts.pipeline.units.get(target)
        if not isinstance(found, InferenceService | Inference | Service):
            return False
        off = self._settings.provision is Provision.OFF
        mode = Provision.OPT_OUT if off else self._settings.provision
        said = wants(mode, found.metadata.annotations, unit.planned.gateway if unit else None)
        return None if said and off else said

    def starting(self, target: Ref) -> str | None:
        """What keeps the pods of a target's gateway from running."""
        return self._starting.words(target)

    def named(self) -> Named:
        """ConfigMaps: whoever may list them reads all that others have."""
        return self._named

    def source(self, feed: Feed) -> ObjectSource:
        """The cluster."""
        settings = self._settings
        self._source = KubernetesSource(
            self._client, feed, settings.namespaces, settings.selector, restated=self._restated
        )
        self._config_maps = ConfigMaps(
            self._call, self._named, feed, self._source.synced.wait, optional=self._of_kserve
        )
        return self._source

    def join(self, parts: Parts) -> None:
        """Follow the program's parts."""
        self._parts = parts
        self._reporter = Reporter(self._call, parts.judge, self._me.namespace, self._report, self._me.owner)
        self._writer = StatusWriter(
            self._leadership.bounded(self._call),
            parts.judge,
            self._source.document,
            self._leadership,
            self._recorder,
            settled=lambda: parts.pipeline.idle and self._elsewhere.synced,
        )
        parts.ledger.subscribe(self._writer.mark)
        parts.rejections.subscribe(lambda gateway, _: self._moved(gateway))
        self._show(KubernetesMetrics(parts.metrics))

    def _show(self, metrics: KubernetesMetrics) -> None:
        heard = (CONFIG_MAPS.kind, self._elsewhere.counts)
        show_following(metrics, lambda: (*self._source.counts(), heard))
        show_reading(metrics, self._config_maps)
        show_writing(metrics, self._writer, self._recorder, self._reporter)
        show_replica(metrics, self._leadership, lambda: self._authority.certificate)
        if self._settings.provision is not Provision.OFF:
            show_gateways(metrics, self._provisioner)

    async def ready(self) -> None:
        """Wait for a certificate: nothing is served before there is one."""
        await self._authority.ready()

    def certificate(self) -> tuple[Path, Path]:
        """Of the authority, or as given."""
        return self._authority.certificate, self._authority.key

    def tasks(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Renew the certificate, get what is named; stand for election, with all that follows, when all is known."""
        return self._authority.run(), self._config_maps.run(), self._lead()

    async def _lead(self) -> None:
        """Whoever leads before all is known would say that nothing is there."""
        await self._opened.wait()
        parts = [
            self._leadership.run(),
            self._writer.run(),
            self._recorder.run(),
            exchange(self._leadership, self._reporter, self._elsewhere),
        ]
        if self._settings.provision is not Provision.OFF:
            parts += [self._provisioner.run(), self._starting.run()]
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)

    # -- What it is told -----------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The first pass is done."""
        self._opened.set()

    def applied(self, changes: Sequence[Change]) -> None:
        """Objects are others: so is what is said of them, and a target's own words on its gateway."""
        refs = [change.object.ref if isinstance(change, Put) else change.ref for change in changes]
        self._writer.mark(refs)
        for ref in refs:
            self._want(ref)
            if (ref.group, ref.kind) == (Service.GROUP, Service.KIND):
                meta = self._source.meta(ref)
                self._provisioner.entrance(ref.namespace, ref.name, meta.resource_version if meta else None)
        self._mended(refs)

    def _mended(self, refs: Iterable[Ref]) -> None:
        """What could not be read may have kept gateways that nobody wants."""
        broken = self._source.broken
        for ref in refs:
            if ref in broken:
                self._broken.add(ref)
            elif ref in self._broken:
                self._broken.discard(ref)
                self._provisioner.mended(ref.namespace)

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """It has been planned; what has failed leaves its gateway as it is."""
        self._writer.mark([owner])
        if any(finding.reason is Reason.FAILED for finding in findings):
            self._failed.add(owner)
            return
        if owner in self._failed:
            self._failed.discard(owner)
            self._provisioner.mended(owner.namespace)
        if owner.group != XDSERVE and owner.kind != ConfigMap.KIND:
            self._reporter.mark_gateway(names.gateway(owner))
            self._want(owner)

    def _restated(self, ref: Ref) -> None:
        self._writer.mark([ref])
        self._want(ref)

    def _moved(self, gateway: str) -> None:
        """Envoys of a gateway came, went, acknowledged or refused something."""
        self._reporter.mark_gateway(gateway)
        self._heard(gateway)

    def _heard(self, gateway: str) -> None:
        """Another replica says something else of a gateway."""
        self._writer.mark_gateway(gateway)
        if (target := self._target_of(gateway)) is not None:
            self._provisioner.moved(target)

    # -- Gateways ------------------------------------------------------------------------------------------------

    def _want(self, ref: Ref) -> None:
        """A target's gateway by its last plan, its own words and its uid; of what is no target there is no plan."""
        if ref.group != XDSERVE:
            self._provisioner.want(ref, self._wanted(ref))

    def _wanted(self, ref: Ref) -> Wanted | None:
        unit = self._parts.pipeline.units.get(ref)
        if unit is None or unit.planned.gateway is None:
            return None
        found, meta = self._parts.pipeline.objects.get(ref), self._source.meta(ref)
        if meta is None or not isinstance(found, InferenceService | Inference | Service):
            return None
        mode = self._settings.provision
        # Where others make the pods, their ServiceAccounts are still to be known.
        return wanted(found, meta.uid, unit.planned.gateway, Provision.OPT_OUT if mode is Provision.OFF else mode)

    def _target_of(self, gateway: str) -> Ref | None:
        """Whose gateway it is."""
        return self._parts.pipeline.owners.get(gateway)

    def _readable(self, target: Ref) -> bool:
        """Whether it is known that no gateway is wanted for a target: it and all that could want one is understood.

        What is not seen (a selector leaves it out, or discovery its kind) may be there all the same. What is deleted
        takes its gateway with it by its owner reference.
        """
        pipeline = self._parts.pipeline
        if target in self._failed | pipeline.waiting or isinstance(pipeline.objects.get(target), Absent):
            return False
        if not all(self._source.installed(resource) for resource in WANTING):
            return False
        return not any(_concerns(broken, target) for broken in self._source.broken)

    def _listens(self, target: Ref, port: int) -> bool:
        """Whether the Envoys of a target's gateway listen there."""
        return Listening(self._parts.server, self._elsewhere.of).at(target, port)

    def targets(self) -> Sequence[Ref]:
        """Those that are to have a gateway."""
        return self._provisioner.targets

    def lacking(self, target: Ref) -> bool:
        """Whether no Envoy of a target's gateway is connected, to any replica."""
        gateway = names.gateway(target)
        return not self._parts.server.connected(gateway) and not connected(*self._elsewhere.of(gateway))

    def stalled(self, target: Ref) -> None:
        """Something else keeps the pods of a gateway from running."""
        self._writer.mark_gateway(names.gateway(target))

    def _told(self, target: Ref) -> None:
        """Something else keeps a gateway from being as wanted."""
        self._parts.ledger.say((PROVISION_ERRORS, target), _entries(target, self._provisioner.errors.get(target)))


def _concerns(broken: Ref, target: Ref) -> bool:
    return broken == target or (broken.namespace == target.namespace and broken.kind in _WANTING_KINDS)


def _entries(target: Ref, trouble: str | None) -> Iterable[Entry]:
    return [Entry(None, target, "metadata.name", Reason.FAILED.value, trouble)] if trouble else []


def _xds_address(settings: Settings, namespace: str) -> Address:
    """Where gateways reach this installation."""
    given = settings.gateway_xds_address
    return Address.parse(given or f"{settings.release}.{namespace}.svc:{settings.xds_address.port}")
