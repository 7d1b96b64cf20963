"""`xdserve serve` on a directory that people edit, well and badly: the last good state goes on being served."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import contextmanager

import pytest
import pytest_asyncio
import yaml

from tests.support.documents import backend, isvc, policy, service, split
from tests.support.serve import Serve
from tests.support.wait import wait_until

POLICY = "TrafficPolicy models/iris"
TARGET = isvc(canary=[{"predictor": {"name": "v2"}, "trafficPercent": 10}])
MODELS = [*backend("iris-predictor", 9001), *backend("iris-v2-predictor", 9002)]


def shares(predictor, v2, **spec):
    return policy(split=split(predictor=predictor, v2=v2), **spec)


def text(document):
    return yaml.safe_dump(document, sort_keys=False)


def give(program):
    """A service with two models, and a policy in a file of its own."""
    program.write("iris.yaml", TARGET, *MODELS)
    program.write("policy.yaml", shares(80, 20))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """One that runs, for all tests that do not end it."""
    with Serve(tmp_path_factory.mktemp("serve")) as program:
        give(program)
        program.start()
        yield program


@pytest_asyncio.fixture
async def serve(program):
    """It, when it has what is given and nothing of what other tests gave it."""
    await program.wait_ready()
    for path in program.objects.iterdir():
        path.unlink()

    async def emptied():
        return [await program.json(f"/debug/{what}") for what in ("gateways", "errors", "status")] == [[], [], []]

    await wait_until(emptied, 20, "all to be gone")
    give(program)

    async def taken():
        accepted = (await program.conditions(POLICY)).get("Accepted")
        return accepted == ("True", "Accepted") and await program.json("/debug/gateways") and not await program.errors()

    await wait_until(taken, 20, "what is given to be served")
    return program


async def one_error(serve):
    """The one error there is, once there is one."""
    (error,) = await wait_until(serve.errors, 20, "an error to be listed")
    return error


async def no_errors(serve):
    async def none():
        return await serve.errors() == []

    await wait_until(none, 20, "no error to be listed")


async def changed(serve, before):
    """The versions served, once they are others than before."""

    async def other():
        versions = await serve.versions()
        return versions if versions != before else None

    return await wait_until(other, 20, "something else to be served")


@contextmanager
def warnings_of(serve, count):
    """Check that the block adds so many warnings to the log; gives a function that lists them."""
    before = len(warnings(serve))

    def added():
        return warnings(serve)[before:]

    yield added
    assert len(added()) == count


def warnings(serve):
    return [line for line in serve.log() if line["level"] in {"warning", "error", "critical"}]


BAD_TEXTS = {
    "a map that does not end": "apiVersion: xdserve.io/v1alpha1\nkind: {\n",
    "a tab": "apiVersion: v1\n\tkind: Service\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "no object": "just words\n",
    "a key twice": text(shares(90, 10)) + "kind: TrafficPolicy\n",
}


@pytest.mark.parametrize("bad", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
async def test_what_cannot_be_read_is_named_and_changes_nothing(serve, bad):
    before = await serve.versions()
    with warnings_of(serve, 1):
        new = serve.objects / ".policy.yaml.new"
        new.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
        new.replace(serve.objects / "policy.yaml")
        error = await one_error(serve)
        assert error["source"]["file"] == "policy.yaml"
        assert error["reason"] == "Unreadable"
        assert error["message"]
        assert "\n" not in error["message"]
    assert await serve.versions() == before
    serve.write("policy.yaml", shares(70, 30))
    await no_errors(serve)
    assert set(await changed(serve, before)) == set(before)


BAD_FIELDS = {
    "weight": ({"split": split(predictor=-1)}, "spec.split[0].weight", "found -1, allowed 0..1000000"),
    "type": ({"split": [{"backend": "v2", "weight": "9"}]}, "spec.split[0].weight", 'found "9", allowed 0..1000000'),
    "name": ({"split": split(nobody=1)}, "spec.split[0].backend", "found nobody, allowed predictor, v2"),
    "unknown": ({"weights": []}, "spec.weights", None),
    "not yet": ({"mirror": [{"backend": "v2"}]}, "spec.mirror", None),
    "regex": (
        {"rules": [{"name": "a", "matches": [{"path": {"type": "RegularExpression", "value": "(a"}}]}]},
        "spec.rules[0].matches[0].path.value",
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
async def test_a_wrong_field_is_named_with_what_is_allowed_and_changes_nothing(serve, spec, field, message):
    before = await serve.versions()
    with warnings_of(serve, 1) as added:
        serve.write("policy.yaml", service("other"), policy(**spec))
        error = await one_error(serve)
        assert error["source"] == {"file": "policy.yaml", "document": 2}
        assert (error["object"], error["field"], error["reason"]) == (POLICY, field, "Invalid")
        assert "found" in error["message"]
        assert message in {None, error["message"]}
        (line,) = [one for one in added() if one.get("field") == field]
        assert (line["file"], line["document"], line["message"]) == ("policy.yaml", 2, error["message"])
    assert await serve.versions() == before
    accepted = (await serve.conditions(POLICY))["Accepted"]
    assert accepted == ("False", "Invalid")
    serve.write("policy.yaml", shares(80, 20))
    await no_errors(serve)
    assert (await serve.conditions(POLICY))["Accepted"] == ("True", "Accepted")
    assert await serve.versions() == before


async def test_one_bad_document_costs_its_file_no_other(serve):
    before = await serve.versions()
    serve.write("policy.yaml", policy(split=split(predictor=-1)), isvc("wine"), *backend("wine-predictor", 9003))
    assert (await one_error(serve))["object"] == POLICY
    assert await serve.versions("models/wine")
    assert await serve.versions() == before


async def test_a_file_written_in_two_halves_is_served_when_it_is_whole(serve):
    before = await serve.versions()
    whole = text(shares(50, 50, rules=[{"name": "late", "split": split(v2=1)}]))
    # The first half is a good document with another meaning: it must not be taken for one that was meant.
    cut = whole.index("- backend: v2")
    with (serve.objects / "policy.yaml").open("w") as file:
        file.write(whole[:cut])
        file.flush()
        file.write(whole[cut:])
    after = await changed(serve, before)
    assert set(after) == set(before)
    routes = (await serve.json("/debug/resources?gateway=models/iris"))["routes"]
    assert "late" in str(routes)
    await no_errors(serve)


async def test_a_half_that_stays_is_an_error_until_the_rest_is_there(serve):
    before = await serve.versions()
    whole = text(shares(50, 50))
    with (serve.objects / "policy.yaml").open("w") as file:
        file.write(whole[: whole.index("weight") + 3])
        file.flush()
        assert (await one_error(serve))["source"]["file"] == "policy.yaml"
        assert await serve.versions() == before
        file.write(whole[whole.index("weight") + 3 :])
    assert set(await changed(serve, before)) == set(before)
    await no_errors(serve)


async def test_an_emptied_file_keeps_what_it_held_until_it_is_deleted(serve):
    before = await serve.versions()
    (serve.objects / "policy.yaml").write_text("")
    error = await one_error(serve)
    assert (error["source"]["file"], error["reason"]) == ("policy.yaml", "Unreadable")
    assert await serve.versions() == before
    (serve.objects / "policy.yaml").unlink()
    await changed(serve, before)
    await no_errors(serve)


async def test_a_deleted_file_takes_its_objects_along(serve):
    before = await serve.versions()
    (serve.objects / "policy.yaml").unlink()
    without = await changed(serve, before)
    assert POLICY not in {entry["object"] for entry in await serve.json("/debug/status")}
    serve.write("policy.yaml", shares(80, 20))
    assert await changed(serve, without) == before
    (serve.objects / "iris.yaml").unlink()

    async def gone():
        return await serve.json("/debug/gateways") == []

    await wait_until(gone, 20, "the gateway to go")
    error = await one_error(serve)
    assert (error["object"], error["field"], error["reason"]) == (POLICY, "spec.targetRef", "TargetNotFound")
    assert (await serve.conditions(POLICY))["Accepted"] == ("False", "TargetNotFound")


async def test_a_backend_that_is_missing_is_said_of_the_policy(serve):
    missing = {"name": "v3", "ref": {"kind": "Service", "name": "iris-v3", "port": 80}}
    serve.write("policy.yaml", shares(80, 20, backends=[missing]))
    error = await one_error(serve)
    assert (error["field"], error["reason"]) == ("spec.backends[0].ref", "BackendNotFound")
    conditions = await serve.conditions(POLICY)
    assert conditions["Accepted"] == ("True", "Accepted")
    assert conditions["ResolvedRefs"] == ("False", "BackendNotFound")


async def test_an_object_in_two_files_is_the_first_ones(serve):
    before = await serve.versions()
    serve.write("second.yaml", shares(1, 99))
    error = await one_error(serve)
    assert (error["source"]["file"], error["object"], error["reason"]) == ("second.yaml", POLICY, "Conflicted")
    assert await serve.versions() == before
    (serve.objects / "second.yaml").unlink()
    await no_errors(serve)


async def test_a_config_map_is_followed_through_its_links(tmp_path):
    """As Kubernetes mounts and updates one: files are links into `..data`, itself a link, replaced at once."""

    def publish(program, version, document):
        folder = program.objects / f"..{version}"
        folder.mkdir()
        (folder / "policy.yaml").write_text(text(document))
        (folder / "iris.yaml").write_text("---\n".join(map(text, [TARGET, *MODELS])))
        link = program.objects / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(program.objects / "..data")

    with Serve(tmp_path) as program:
        publish(program, "2026_01", shares(90, 10))
        for name in ("policy.yaml", "iris.yaml"):
            (program.objects / name).symlink_to(f"..data/{name}")
        await program.started()
        first = await program.versions()
        assert {entry["name"] for entry in await program.json("/debug/gateways")} == {"models/iris"}
        assert await program.errors() == []
        publish(program, "2026_02", shares(50, 50))
        second = await changed(program, first)
        assert [name for name in first if first[name] != second[name]] == [("routes", "models/iris")]
        publish(program, "2026_03", policy(split=split(predictor=-1)))
        assert (await one_error(program))["source"]["file"] == "policy.yaml"
        assert await program.versions() == second
        publish(program, "2026_04", shares(90, 10))
        assert await changed(program, second) == first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_well_and_soon_when_told(tmp_path, number):
    with Serve(tmp_path) as program:
        give(program)
        await program.started()
        began = time.monotonic()
        program.child.process.send_signal(number)
        assert await asyncio.to_thread(program.child.process.wait, 30) == 0
        # The kernel's limit for a pod is 30 s; streams are given one.
        assert time.monotonic() - began < 10
        assert "Traceback" not in program.child.log.read_text()


@pytest.mark.parametrize(("flag", "taken"), {"--xds-address": "xds", "--admin-address": "admin"}.items())
async def test_a_second_one_on_the_same_port_says_so_in_one_line(serve, tmp_path, flag, taken):
    folder = tmp_path / "second"
    folder.mkdir()
    address = f"127.0.0.1:{getattr(serve, taken)}"
    with Serve(folder) as second:
        second.write("iris.yaml", TARGET, *MODELS)
        second.start(flag, address)
        assert await asyncio.to_thread(second.child.process.wait, 30) == 1
        (line,) = warnings(second)
        setting = flag.removeprefix("--").replace("-", "_")
        assert line["event"] == "cannot start"
        assert line["cause"].startswith(f"{setting} {address}: ")
        assert "address already in use" in line["cause"].lower()
        assert "Traceback" not in second.child.log.read_text()
    assert (await serve.get("/healthz"))[0] == 200


async def test_a_directory_that_is_not_there_is_said_in_one_line(tmp_path):
    with Serve(tmp_path) as program:
        program.objects.rmdir()
        program.start()
        assert await asyncio.to_thread(program.child.process.wait, 30) == 1
        (line,) = warnings(program)
        assert (line["event"], str(program.objects) in line["cause"]) == ("cannot start", True)


@pytest.mark.parametrize(
    ("flags", "said"),
    {
        ("--linger", "soon"): "--linger: found 'soon', allowed",
        ("--xds-address", "0.0.0.0:18000"): "--xds-address: found '0.0.0.0:18000', allowed",
        ("--no-such-flag",): "--no-such-flag",
    }.items(),
)
async def test_wrong_usage_is_told_and_exits_2(tmp_path, flags, said):
    with Serve(tmp_path) as program:
        program.start(*flags)
        assert await asyncio.to_thread(program.child.process.wait, 30) == 2
        assert said in program.child.log.read_text()
