"""How services are called from outside: by the settings, else by KServe's ConfigMap, else by KServe's own defaults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from translator.objects.core import ConfigMap
from translator.objects.errors import one_line, show
from translator.objects.fields import is_domain
from translator.objects.ref import CORE, Origin, Ref
from translator.objects.templates import (
    DEFAULT_DOMAIN_TEMPLATE,
    INGRESS_DOMAIN,
    NAME,
    NAMESPACE,
    Template,
    domain_template,
    path_template,
)
from translator.plan import Finding, Reason
from translator.planners.options import DOMAIN, URL_SCHEME, Options
from translator.view import Derivation, View

KEY = "ingress"
"""The key of KServe's ConfigMap that says how services are called."""

T = TypeVar("T")


class Asked(NamedTuple):
    """What the operator says, and the ConfigMap that is asked for the rest; None is not said."""

    domain: str | None
    domain_template: str | None
    path_template: str | None
    url_scheme: str | None
    config_map: Ref | None


@dataclass(frozen=True, slots=True)
class Naming:
    """What services are called by; without ``paths`` none has a path.

    ``problems`` are what is wrong in KServe's ConfigMap.
    """

    domain: str
    hosts: Template
    paths: Template | None
    scheme: str
    problems: tuple[str, ...] = ()

    def host(self, ref: Ref, component: str = "") -> str:
        """The host of a service or, as KServe names its Service, of a component: ``iris-models.<domain>``."""
        name = f"{ref.name}-{component}" if component else ref.name
        return self.hosts.render({NAME: name, NAMESPACE: ref.namespace, INGRESS_DOMAIN: self.domain})

    def path(self, ref: Ref) -> str:
        """The path below which a service is served at the domain itself; empty if it has none."""
        if self.paths is None:
            return ""
        return self.paths.render({NAME: ref.name, NAMESPACE: ref.namespace}).rstrip("/")

    def url(self, host: str, path: str) -> str:
        """Where KServe says that a service of this host and path is."""
        return f"{self.scheme}://{self.domain if path else host}{path}"

    def of_host(self, host: str) -> Iterator[tuple[str, str]]:
        """The namespaces and names that a host can be derived from."""
        for values in self.hosts.values_of(host, {INGRESS_DOMAIN: self.domain}):
            yield values[NAMESPACE], values[NAME]


def config_map(options: Options) -> Ref | None:
    """KServe's ConfigMap; None if it is not to be read."""
    return _config_map(options.kserve_config_map)


@lru_cache(16)
def _config_map(written: str) -> Ref | None:
    namespace, _, name = written.partition("/")
    return Ref(CORE, ConfigMap.KIND, namespace, name) if name else None


def naming(view: View, options: Options) -> Naming:
    """How services are called."""
    said = options.domain, options.domain_template, options.path_template, options.url_scheme
    return view.derive(NAMING, Asked(*said, config_map(options)))


def _naming(view: View, asked: Asked) -> Naming:
    said = _Said(view, asked.config_map)
    domain = asked.domain or said.read("ingressDomain", _domain) or DOMAIN
    hosts = domain_template(asked.domain_template) if asked.domain_template else None
    paths = path_template(asked.path_template) if asked.path_template else None
    return Naming(
        domain=domain,
        hosts=hosts or said.read("domainTemplate", domain_template) or DEFAULT_DOMAIN_TEMPLATE,
        paths=paths or said.read("pathTemplate", path_template),
        scheme=asked.url_scheme or said.read("urlScheme", _scheme) or URL_SCHEME,
        problems=tuple(said.problems),
    )


NAMING: Derivation[Asked, Naming] = Derivation("naming", _naming)


class _Said:
    """What KServe's ConfigMap says; what cannot be read is not said, and is a problem.

    As in Go, the names of fields may be written in any case.
    """

    def __init__(self, view: View, ref: Ref | None) -> None:
        self.problems: list[str] = []
        found = view.get(ref, ConfigMap) if ref else None
        self._fields = self._parsed(found.data.get(KEY, "{}")) if isinstance(found, ConfigMap) else {}

    def _parsed(self, text: str) -> dict[str, object]:
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.problems.append(one_line(f"cannot be read as JSON: {error}"))
            return {}
        if not isinstance(fields, dict):
            self.problems.append(f"found {show(fields)}, allowed a map")
            return {}
        return {str(field).lower(): value for field, value in fields.items()}

    def read(self, field: str, parse: Callable[[str], T]) -> T | None:
        """What a field says; None where it says nothing."""
        value = self._fields.get(field.lower())
        if not value:
            return None
        if not isinstance(value, str):
            self.problems.append(f"{field}: found {show(value)}, allowed a string")
            return None
        try:
            return parse(value)
        except ValueError as error:
            self.problems.append(one_line(f"{field}: {error}"))
            return None


def _domain(text: str) -> str:
    if not is_domain(text.lower()):
        raise ValueError(f"found {show(text)}, allowed a DNS name")
    return text.lower()


def _scheme(text: str) -> str:
    if text not in {"http", "https"}:
        raise ValueError(f"found {show(text)}, allowed http or https")
    return text


def check(view: View, ref: Ref, options: Options) -> tuple[Finding, ...]:
    """What KServe's ConfigMap says wrong; KServe's defaults stand for it."""
    origin = Origin(ref, f"data.{KEY}")
    return tuple(Finding(origin, Reason.INVALID, problem) for problem in naming(view, options).problems)
