"""KServe's templates of names and paths: Go's text/template, as far as KServe's documentation uses it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from translator.objects.errors import show

NAME, NAMESPACE, INGRESS_DOMAIN = "Name", "Namespace", "IngressDomain"

LONGEST = 512
"""Characters of a template."""

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")


class TemplateInvalid(ValueError):
    """A template that is not understood; ``allowed`` is what may stand there."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"allowed {allowed}")
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts (the even parts) and the variables between them (the odd parts).

    ``format`` is the same for `str.format_map`: hosts are rendered for each plan.
    """

    parts: tuple[str, ...]
    format: str

    def render(self, values: Mapping[str, str]) -> str:
        """The text for some values; there is one for each variable."""
        return self.format.format_map(values)

    def values_of(self, text: str, known: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Every way in which this text can have been rendered, with the values that are known."""
        yield from _values(self.parts, 0, text, dict(known))


def _values(parts: Sequence[str], number: int, text: str, known: dict[str, str]) -> Iterator[dict[str, str]]:
    if number == len(parts):
        if not text:
            yield known
        return
    part = known.get(parts[number]) if number % 2 else parts[number]
    if part is not None:
        if text.startswith(part):
            yield from _values(parts, number + 1, text[len(part) :], known)
        return
    for end in _ends(parts, number, text, known):
        yield from _values(parts, number + 1, text[end:], known | {parts[number]: text[:end]})


def _ends(parts: Sequence[str], number: int, text: str, known: Mapping[str, str]) -> Iterable[int]:
    """Where a variable can end: at one place if all after it is known, so that long names cost little."""
    after = [known.get(part) if at % 2 else part for at, part in enumerate(parts) if at > number]
    if None in after:
        return range(1, len(text) + 1)
    end = len(text) - sum(map(len, filter(None, after)))
    return (end,) if end > 0 else ()


def domain_template(text: str) -> Template:
    """The template of host names.

    Raises:
        TemplateInvalid: it says what is allowed.
    """
    template = _parsed(text, (NAME, NAMESPACE, INGRESS_DOMAIN))
    if not _HOST.fullmatch(template.render({NAME: "a", NAMESPACE: "b", INGRESS_DOMAIN: "c.d"})):
        raise TemplateInvalid(f"a DNS name in lower case, as in {DOMAIN_TEMPLATE}")
    return template


def path_template(text: str) -> Template:
    """The template of paths.

    Raises:
        TemplateInvalid: it says what is allowed.
    """
    template = _parsed(text, (NAME, NAMESPACE))
    if not _PATH.fullmatch(template.render({NAME: "a", NAMESPACE: "b"})):
        raise TemplateInvalid("a path of letters, digits, ., _, ~ and -, as in /serving/{{ .Namespace }}/{{ .Name }}")
    return template


def _parsed(text: str, variables: Sequence[str]) -> Template:
    """Each service is to have a name of its own, so its name and namespace have to be in it."""
    if len(text) > LONGEST:
        raise TemplateInvalid(f"at most {LONGEST} characters")
    literals, actions = _ACTION.split(text)[::2], _ACTION.findall(text)
    for action in actions:
        if action.removeprefix(".") not in variables or not action.startswith("."):
            raise TemplateInvalid(f"{', '.join(f'.{name}' for name in variables)} instead of {show(action)}")
    if any(mark in literal for literal in literals for mark in ("{{", "}}")):
        raise TemplateInvalid("braces in pairs")
    names = [action.removeprefix(".") for action in actions]
    if not {NAME, NAMESPACE} <= set(names):
        raise TemplateInvalid(f"what has .{NAME} and .{NAMESPACE}")
    parts = [part for pair in zip(literals, [*names, ""], strict=True) for part in pair]
    formats = (f"{{{part}}}" if number % 2 else _doubled(part) for number, part in enumerate(parts[:-1]))
    return Template(tuple(parts[:-1]), "".join(formats))


def _doubled(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


DOMAIN_TEMPLATE = "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}"
"""KServe's own default."""

DEFAULT_DOMAIN_TEMPLATE = domain_template(DOMAIN_TEMPLATE)
