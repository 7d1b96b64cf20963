"""The rules of the directory source, without a directory."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from translator.objects import Ref
from xdserve.sources import Broken, Gone, Put, Source
from xdserve.sources.files import Files, understand

# Other work on a machine moves the time that an example takes.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BROKEN = "kind: [\n"


def policy(name: str, weight: object = 1) -> str:
    return (
        "apiVersion: xdserve.io/v1alpha1\nkind: TrafficPolicy\n"
        f"metadata: {{name: {name}}}\n"
        f"spec: {{targetRef: {{kind: Service, name: x}}, split: [{{backend: b, weight: {weight}}}]}}\n"
    )


def join(*documents: str) -> bytes:
    return "---\n".join(documents).encode()


def ref(name: str) -> Ref:
    return Ref("xdserve.io", "TrafficPolicy", "default", name)


def weights(files: Files) -> dict[str, int]:
    return {each.ref.name: each.spec.split[0].weight for each in files.objects()}


def told(files: Files) -> list[tuple[str, int, str | None, str]]:
    return [
        (error.source.file, error.source.document, error.object.name if error.object else None, error.reason)
        for error in files.errors()
    ]


@pytest.fixture
def files() -> Files:
    return Files()


def test_only_what_changed_is_told(files: Files):
    first = files.update("a.yaml", join(policy("a"), policy("b")))
    assert [type(change) for change in first.changes] == [Put, Put]
    assert files.update("a.yaml", join(policy("a"), policy("b"))).changes == ()
    [change] = files.update(
        "a.yaml", join(policy("new"), policy("b"), policy("a", 2))[len(policy("new")) + 4 :]
    ).changes
    assert isinstance(change, Put)
    assert (change.object.ref, change.source) == (ref("a"), Source("a.yaml", 2))
    assert files.source(ref("b")) == Source("a.yaml", 1)


def test_an_object_taken_out_is_gone_and_so_are_those_of_a_deleted_file(files: Files):
    files.update("a.yaml", join(policy("a"), policy("b")))
    assert files.update("a.yaml", join(policy("b"))).changes == (Gone(ref("a")),)
    assert files.update("a.yaml", None).changes == (Gone(ref("b")),)
    assert list(files.paths()) == []
    assert files.source(ref("b")) is None


def test_kinds_that_are_not_ours_are_passed_over(files: Files):
    update = files.update("a.yaml", b"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    assert update == ((), False)


GRAPH = "apiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\nmetadata: {name: g}\n"


def test_a_note_comes_and_goes_with_its_document_and_is_no_error(files: Files):
    update = files.update("a.yaml", join(policy("a"), GRAPH))
    assert [(*note.source, str(note.object), note.field) for note in files.notes()] == [
        ("a.yaml", 2, "InferenceGraph default/g", "kind")
    ]
    assert (len(update.changes), update.errors_changed, files.errors()) == (1, False, [])
    assert files.update("a.yaml", join(GRAPH)).changes == (Gone(ref("a")),)
    assert [note.source.document for note in files.notes()] == [1]
    files.update("a.yaml", None)
    assert (files.notes(), list(files.paths())) == ([], [])


def test_an_invalid_object_keeps_its_last_good_text_and_harms_no_other(files: Files):
    files.update("a.yaml", join(policy("a"), policy("b")))
    update = files.update("a.yaml", join(policy("a", -1), policy("b", 2)))
    broken, put = update.changes
    assert isinstance(broken, Broken)
    assert (broken.ref, broken.source) == (ref("a"), Source("a.yaml", 1))
    assert str(broken.problems[0]) == "spec.split[0].weight: found -1, allowed 0..1000000"
    assert isinstance(put, Put)
    assert update.errors_changed
    [error] = files.errors()
    assert str(error) == (
        "a.yaml document 1: TrafficPolicy default/a: spec.split[0].weight: found -1, allowed 0..1000000"
    )
    assert files.update("a.yaml", join(policy("a", -1), policy("b", 2))) == ((), False)
    [put] = files.update("a.yaml", join(policy("a"), policy("b", 2))).changes
    assert isinstance(put, Put)  # told again, though the feed still has an equal one
    assert files.errors() == []


def test_a_misspelt_kind_of_ours_takes_nothing_away(files: Files):
    files.update("a.yaml", join(policy("a"), policy("b")))
    update = files.update("a.yaml", join(policy("a").replace("TrafficPolicy", "TrafficPolicyy"), policy("b", 2)))
    assert [type(change) for change in update.changes] == [Put]
    assert weights(files) == {"a": 1, "b": 2}
    assert told(files) == [("a.yaml", 1, None, "Unreadable")]


def test_every_problem_of_an_object_is_listed(files: Files):
    files.update("a.yaml", policy("a", -1).replace("kind: Service", "kind: Pod").encode())
    assert [error.field for error in files.errors()] == ["spec.targetRef.kind", "spec.split[0].weight"]


def test_an_invalid_object_that_is_deleted_is_gone(files: Files):
    files.update("a.yaml", join(policy("a", -1)))
    assert files.update("a.yaml", None).changes == (Gone(ref("a")),)
    assert files.errors() == []


@pytest.mark.parametrize(
    "unknown", [BROKEN, "a: 1\n", "kind: TrafficPolicy\n", "- 1\n", policy("x").replace("name: x}", "}", 1)]
)
def test_a_document_that_cannot_be_told_keeps_what_the_file_held(files: Files, unknown: str):
    files.update("a.yaml", join(policy("a"), policy("b")))
    update = files.update("a.yaml", join(policy("b", 2), unknown))
    [put] = update.changes
    assert isinstance(put, Put)
    assert weights(files) == {"a": 1, "b": 2}
    assert {error[:2] + error[3:] for error in told(files)} == {("a.yaml", 2, "Unreadable")}
    assert update.errors_changed
    assert files.update("a.yaml", join(policy("b", 2))).changes == (Gone(ref("a")),)
    assert told(files) == []


@pytest.mark.parametrize("empty", [b"", b"\n  \n"])
def test_an_empty_file_keeps_what_it_held_until_it_is_filled_or_deleted(files: Files, empty: bytes):
    files.update("a.yaml", join(policy("a")))
    assert files.update("a.yaml", empty).changes == ()
    assert told(files) == [("a.yaml", 0, None, "Unreadable")]
    assert files.update("a.yaml", empty) == ((), False)
    assert files.update("a.yaml", None).changes == (Gone(ref("a")),)
    assert told(files) == []


def test_a_file_of_comments_holds_nothing(files: Files):
    files.update("a.yaml", join(policy("a")))
    assert files.update("a.yaml", b"# all of it commented out\n").changes == (Gone(ref("a")),)
    assert told(files) == []


def test_an_object_in_two_files_is_the_first_paths(files: Files):
    files.update("b.yaml", join(policy("x", 2)))
    [put] = files.update("a.yaml", join(policy("x", 1))).changes
    assert isinstance(put, Put)
    assert weights(files) == {"x": 1}
    assert told(files) == [("b.yaml", 1, "x", "Conflicted")]
    [error] = files.errors()
    assert "a.yaml document 1" in error.message
    assert files.update("b.yaml", join(policy("x", 3))) == ((), False)
    [put] = files.update("a.yaml", None).changes
    assert isinstance(put, Put)
    assert weights(files) == {"x": 3}
    assert told(files) == []


def test_an_object_twice_in_one_file_is_the_first_documents(files: Files):
    files.update("a.yaml", join(policy("x", 1), policy("x", 2)))
    assert weights(files) == {"x": 1}
    assert told(files) == [("a.yaml", 2, "x", "Conflicted")]


def test_the_first_path_has_an_object_also_when_its_text_is_invalid(files: Files):
    files.update("b.yaml", join(policy("x", 2)))
    [broken] = files.update("a.yaml", join(policy("x", -1))).changes
    assert isinstance(broken, Broken)
    assert told(files) == [("a.yaml", 1, "x", "Invalid"), ("b.yaml", 1, "x", "Conflicted")]


def test_what_is_bad_news(files: Files):
    files.update("a.yaml", join(policy("a"), policy("b")))
    for good in (join(policy("a", 2), policy("b")), join(policy("b"), policy("a"), policy("c"))):
        assert not files.doubts(understand("a.yaml", good))
    for bad in (
        None,
        b"",
        join(policy("a")),
        join(policy("a"), policy("b"))[:-1],
        join(policy("a"), policy("b", -1)),
        BROKEN.encode(),
    ):
        assert files.doubts(understand("a.yaml", bad))
    assert not files.doubts(understand("c.json", b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}'))


NAMES = st.sampled_from("abc")
DOCUMENTS = st.lists(st.builds(policy, NAMES, st.integers(0, 3)), max_size=3)
TEXTS = st.none() | DOCUMENTS.map(lambda documents: join(*documents) or b"# nothing\n")
BAD_DOCUMENTS = st.lists(st.builds(policy, NAMES, st.integers(-1, 3)) | st.just("a: 1\n"), max_size=3)
BROKEN_TEXTS = TEXTS | st.just(b"") | BAD_DOCUMENTS.map(lambda documents: join(*documents, BROKEN))
PATHS = st.sampled_from(["1.yaml", "2.yaml", "3.yaml"])


@settings(relaxed, max_examples=300)
@given(st.lists(st.tuples(PATHS, TEXTS), max_size=12))
def test_the_end_is_what_a_fresh_scan_gives(writes: list[tuple[str, bytes | None]]):
    files, fresh, fed = Files(), Files(), {}
    for path, text in writes:
        _feed(fed, files.update(path, text).changes)
    for path, text in dict(writes).items():
        fresh.update(path, text)
    assert fed == {each.ref: each for each in fresh.objects()}
    assert files.errors() == fresh.errors()
    assert set(files.paths()) == set(fresh.paths())


@settings(relaxed, max_examples=300)
@given(st.lists(st.tuples(PATHS, BROKEN_TEXTS), max_size=12))
def test_errors_come_and_go_with_their_texts(writes: list[tuple[str, bytes | None]]):
    files, fed, known = Files(), {}, []
    for path, text in writes:
        held = dict(fed)
        update = files.update(path, text)
        _feed(fed, update.changes)
        assert update.errors_changed == (files.errors() != known)
        known = files.errors()
        if text is not None and not understand(path, text).complete:
            assert held.keys() <= fed.keys()
    for path in {path for path, _ in writes}:
        _feed(fed, files.update(path, None).changes)
    assert (fed, files.errors(), list(files.paths())) == ({}, [], [])


def _feed(fed: dict[Ref, object], changes: object) -> None:
    for change in changes:
        if isinstance(change, Put):
            fed[change.object.ref] = change.object
        elif isinstance(change, Gone):
            fed.pop(change.ref, None)
