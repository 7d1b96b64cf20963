"""KServe's templates of hosts and paths, forth and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translator.objects import templates
from translator.objects.templates import DOMAIN_TEMPLATE, TemplateInvalid, domain_template, path_template

WORD = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
TEMPLATES = st.sampled_from([
    DOMAIN_TEMPLATE,
    "{{.Name}}.{{.Namespace}}.{{.IngressDomain}}",
    "{{- .Namespace -}}{{ .Name }}.x",
    "a-{{ .Name }}-{{ .Namespace }}-{{ .Name }}.{{ .IngressDomain }}",
])  # fmt: skip


@given(TEMPLATES, WORD, WORD)
def test_a_host_tells_of_whom_it_may_be(text, name, namespace):
    template, domain = domain_template(text), {"IngressDomain": "example.com"}
    host = template.render({"Name": name, "Namespace": namespace, **domain})
    found = list(template.values_of(host, domain))
    assert {"Name": name, "Namespace": namespace, **domain} in found
    assert all(template.render(values) == host for values in found)


def test_a_host_of_another_form_is_nobodys():
    template = domain_template(DOMAIN_TEMPLATE)
    assert not list(template.values_of("iris.models.example.com", {"IngressDomain": "example.com"}))
    assert not list(template.values_of("iris-models.example.org", {"IngressDomain": "example.com"}))
    assert len(list(template.values_of("-".join("a" * 100) + ".example.com", {"IngressDomain": "example.com"}))) > 90


def test_a_host_with_many_dashes_costs_a_step_for_each(monkeypatch):
    steps, step = [], templates._values
    monkeypatch.setattr(templates, "_values", lambda *args: steps.append(args) or step(*args))
    host = ".".join(["-".join("a" * 32)] * 3) + ".example.com"
    found = list(domain_template(DOMAIN_TEMPLATE).values_of(host, {"IngressDomain": "example.com"}))
    assert len(found) == 93
    assert len(steps) < 1_000


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (domain_template, ""),
        (domain_template, "{{ .Name }}-{{ .Namespace }}" + "a" * 500),
        (domain_template, "{{ .Name }}-{{ .Namespace }}.{{ .Annotations.team }}"),
        (domain_template, '{{ printf "%s" .Name }}-{{ .Namespace }}'),
        (domain_template, "{{ .Name }}-{{ .Namespace }}-.example.com"),
        (domain_template, "{{ Name }}-{{ .Namespace }}"),
        (domain_template, "{{ .Name }}-{{ .Namespace }}}}"),
        (path_template, "/{{ .Namespace }}//{{ .Name }}"),
        (path_template, "/{{ .Namespace }}/{{ .Name }}?a"),
        (path_template, "/{{ .Namespace }}/%41{{ .Name }}"),
    ],
)
def test_what_is_not_understood_is_refused_in_words(parse, text):
    with pytest.raises(TemplateInvalid) as raised:
        parse(text)
    assert raised.value.allowed
    assert raised.value.allowed.isprintable()
