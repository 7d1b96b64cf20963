"""What load reports are counted as."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds import loads as module
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.config.endpoint.v3 import ClusterStats, UpstreamLocalityStats
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest, LoadStatsResponse
from xds.api.google.protobuf import Duration
from xds.loads import Delta, Load, Loads, LoadSession, Report, node_of
from xds.wire import DecodeError, decode, encode
from xds.wire.varint import delimited

GATEWAY = "models/iris"
STABLE, CANARY = "models/iris/stable", "models/iris/canary"


def make(*known):
    """Figures of a server on which every gateway has these clusters; the set may be changed."""
    clusters = set(known or (STABLE, CANARY))
    return Loads(lambda gateway, cluster: cluster in clusters), clusters


def session(loads, gateway=GATEWAY, seconds=10.0):
    return LoadSession(gateway, loads, interval_seconds=seconds)


def locality(issued=0, successes=0, errors=0, in_flight=0):
    return UpstreamLocalityStats(
        total_issued_requests=issued,
        total_successful_requests=successes,
        total_error_requests=errors,
        total_requests_in_progress=in_flight,
    )


def cluster(name, *localities, dropped=0):
    return ClusterStats(cluster_name=name, upstream_locality_stats=[*localities], total_dropped_requests=dropped)


def request(*clusters, node=None):
    return encode(LoadStatsRequest(node=node, cluster_stats=[*clusters]))


def interval(seconds, nanos=0):
    """The field of a ClusterStats, which the class is cut to be without."""
    return b"\x22" + delimited(encode(Duration(seconds=seconds, nanos=nanos)))


def load(issued=0, successes=0, errors=0, in_flight=0, dropped=0):
    return Load(issued=issued, successes=successes, errors=errors, in_flight=in_flight, dropped=dropped)


# -- What is asked ---------------------------------------------------------------------------------------------------


def test_the_first_request_is_answered_with_what_to_report():
    loads, _ = make()
    answer = decode(LoadStatsResponse, session(loads, seconds=2.5).receive(request(node=Node(id="a"))))
    assert answer.send_all_clusters
    assert answer.load_reporting_interval == timedelta(seconds=2.5)


def test_reports_are_answered_only_when_what_is_asked_changes():
    loads, _ = make()
    stream = session(loads)
    stream.receive(request())
    assert stream.receive(request(cluster(STABLE))) is None
    stream.interval_seconds = 60.0
    answer = decode(LoadStatsResponse, stream.receive(request(cluster(STABLE))))
    assert answer.load_reporting_interval == timedelta(minutes=1)
    assert stream.receive(request(cluster(STABLE))) is None


@pytest.mark.parametrize("seconds", [0, -1, 0.05, 86_401, float("nan"), float("inf")])
def test_an_interval_that_would_harm_an_envoy_is_ours_to_mend(seconds):
    with pytest.raises(ValueError, match=r"0\.1 s to 1 day"):
        session(make()[0], seconds=seconds)


# -- What is counted -------------------------------------------------------------------------------------------------


def test_counts_are_of_an_interval_and_those_in_flight_of_now():
    loads, _ = make()
    stream = session(loads)
    stream.receive(request(cluster(STABLE, locality(10, 7, 2, in_flight=1), dropped=3)))
    stream.receive(request(cluster(STABLE, locality(5, 4, 1, in_flight=2), dropped=1)))
    assert loads.reports(GATEWAY) == {STABLE: load(15, 11, 3, in_flight=2, dropped=4)}


def test_localities_are_added_up():
    loads, _ = make()
    session(loads).receive(request(cluster(STABLE, locality(4, 3, 1, 5), locality(), locality(0, 0, 2, 1))))
    assert loads.reports(GATEWAY) == {STABLE: load(4, 3, 3, in_flight=6)}


def test_a_cluster_without_traffic_has_figures():
    loads, _ = make()
    session(loads).receive(request(cluster(STABLE)))
    assert loads.reports(GATEWAY) == {STABLE: load()}


def test_a_cluster_that_comes_twice_in_a_report_counts_twice():
    loads, _ = make()
    stream = session(loads)
    both = cluster(STABLE, locality(1, 1, 0, 2)), cluster(STABLE, locality(2, 1, 1, 3))
    stream.receive(request(*both))
    assert loads.reports(GATEWAY) == {STABLE: load(3, 2, 1, in_flight=5)}
    stream.receive(request(*both))
    assert loads.reports(GATEWAY) == {STABLE: load(6, 4, 2, in_flight=5)}


def test_the_first_request_of_a_new_stream_has_what_happened_meanwhile():
    loads, _ = make()
    session(loads).receive(request(cluster(STABLE, locality(11, 11)), node=Node(id="a")))
    assert loads.reports(GATEWAY) == {STABLE: load(11, 11)}


def test_envoys_of_a_gateway_are_added_up_and_gateways_kept_apart():
    loads, _ = make()
    for _ in range(2):
        session(loads).receive(request(cluster(STABLE, locality(1, 1, 0, 4))))
    session(loads, "models/other").receive(request(cluster(STABLE, locality(9, 9))))
    assert loads.reports(GATEWAY) == {STABLE: load(2, 2, in_flight=8)}
    assert loads.reports("models/other") == {STABLE: load(9, 9)}
    assert sorted(loads.gateways()) == [GATEWAY, "models/other"]


def test_what_is_in_flight_goes_with_the_stream_and_counters_stay():
    loads, _ = make()
    gone, there = session(loads), session(loads)
    for stream in (gone, there):
        stream.receive(request(cluster(STABLE, locality(3, 1, 1, in_flight=1))))
    gone.close()
    gone.close()
    assert loads.reports(GATEWAY) == {STABLE: load(6, 2, 2, in_flight=1)}


@pytest.mark.parametrize(
    ("before", "now", "unconnected"),
    [
        (locality(), locality(errors=9), 9),
        (locality(), locality(issued=5, errors=5), 0),
        (locality(issued=2, in_flight=2), locality(errors=2), 0),
        (locality(issued=2, in_flight=2), locality(issued=1, errors=5), 2),
        (locality(), locality(issued=4, successes=4, errors=3), 0),
        (None, locality(errors=9), 0),
    ],
    ids=["no connection", "answers of 500", "broken streams", "some of each", "never too many", "the first report"],
)
def test_errors_without_a_connection_are_told_from_those_of_requests_that_were_issued(before, now, unconnected):
    loads, _ = make()
    stream, told = session(loads), []
    stream.receive(request(*(cluster(STABLE, before) for _ in range(before is not None))))
    loads.subscribe(GATEWAY, told.append)
    stream.receive(request(cluster(STABLE, now)))
    assert told[0].deltas[0].unconnected == unconnected


def test_a_cluster_that_a_report_leaves_out_has_nothing_in_flight():
    loads, _ = make()
    stream = session(loads)
    stream.receive(request(cluster(STABLE, locality(in_flight=7)), cluster(CANARY, locality(in_flight=1))))
    stream.receive(request(cluster(CANARY, locality(in_flight=2))))
    assert {name: found.in_flight for name, found in loads.reports(GATEWAY).items()} == {STABLE: 0, CANARY: 2}


# -- What is not counted ---------------------------------------------------------------------------------------------


def test_clusters_that_the_server_does_not_know_are_passed_over():
    loads, _ = make(STABLE)
    session(loads).receive(request(*(cluster(f"made/up/{n}", locality(1)) for n in range(50)), cluster("xdserve")))
    assert loads.reports(GATEWAY) == {}
    assert loads.gateways() == []


def test_a_cluster_that_is_removed_loses_its_figures():
    loads, known = make()
    stream, silent = session(loads), session(loads)
    for each in (stream, silent):
        each.receive(request(cluster(STABLE, locality(1, 1, in_flight=1)), cluster(CANARY, locality(1, 1))))
    known.discard(CANARY)
    assert set(loads.reports(GATEWAY)) == {STABLE}  # nobody sees it, though an Envoy may still have it
    stream.receive(request(cluster(STABLE), cluster(CANARY, locality(5))))
    silent.close()
    known.add(CANARY)
    assert loads.reports(GATEWAY) == {STABLE: load(2, 2)}  # as if it had never been
    stream.receive(request(cluster(CANARY, locality(2, 2))))
    assert loads.reports(GATEWAY)[CANARY] == load(2, 2)


def test_a_gateway_that_is_forgotten_starts_anew():
    loads, _ = make()
    stream = session(loads)
    stream.receive(request(cluster(STABLE, locality(5, 5, in_flight=9))))
    loads.forget(GATEWAY)
    loads.forget("models/never-seen")
    assert (loads.gateways(), loads.reports(GATEWAY)) == ([], {})
    stream.receive(request(cluster(STABLE, locality(1, 1, in_flight=2))))
    assert loads.reports(GATEWAY) == {STABLE: load(1, 1, in_flight=2)}
    stream.close()
    assert loads.reports(GATEWAY) == {STABLE: load(1, 1)}


def test_a_gateway_without_figures_is_not_kept():
    loads, known = make()
    stream = session(loads)
    stream.receive(request(cluster(STABLE)))
    known.clear()
    stream.close()
    assert loads.gateways() == []


def test_the_clusters_of_a_gateway_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_CLUSTERS", 3)
    loads = Loads(lambda gateway, cluster: True)
    session(loads).receive(request(cluster("a"), cluster("b")))
    session(loads).receive(request(cluster("c"), cluster("d"), cluster("a", locality(1))))
    assert sorted(loads.reports(GATEWAY)) == ["a", "b", "c"]
    assert loads.reports(GATEWAY)["a"].issued == 1


# -- Being told ------------------------------------------------------------------------------------------------------


def test_a_subscriber_gets_each_report_with_its_interval():
    loads, _ = make()
    told = []
    loads.subscribe(GATEWAY, told.append)
    one = encode(cluster(STABLE, locality(4, 1, 3, 1), dropped=2)) + interval(9, 500_000_000)
    session(loads).receive(request() + b"\x12" + delimited(one) + request(cluster(CANARY), cluster("unknown")))
    session(loads, "models/other").receive(request(cluster(STABLE)))
    (report,) = told
    assert (report.gateway, report.deltas[1]) == (GATEWAY, Delta(CANARY, 0, 0, 0, 0, 0))
    assert report.deltas[0] == Delta(STABLE, issued=4, successes=1, errors=3, dropped=2, in_flight=1)


def test_the_interval_is_that_of_the_clusters():
    loads, _ = make()
    told = []
    loads.subscribe(GATEWAY, told.append)
    one = encode(cluster(STABLE)) + interval(9, 500_000_000)
    session(loads).receive(b"\x12" + delimited(one))
    session(loads).receive(request())
    assert told == [
        Report(gateway=GATEWAY, seconds=9.5, deltas=(Delta(STABLE, 0, 0, 0, 0, 0),)),
        Report(gateway=GATEWAY, seconds=0.0, deltas=()),
    ]


def test_who_unsubscribes_is_told_nothing_more():
    loads, _ = make()
    told = []
    first, second = loads.subscribe(GATEWAY, told.append), loads.subscribe(GATEWAY, told.append)
    stream = session(loads)
    stream.receive(request(cluster(STABLE)))
    assert len(told) == 2
    first()
    first()
    stream.receive(request(cluster(STABLE)))
    assert len(told) == 3
    second()
    loads.subscribe(GATEWAY, told.append)
    second()  # long over: not somebody else's
    stream.receive(request(cluster(STABLE)))
    assert len(told) == 4


def test_a_subscriber_may_leave_when_it_is_told():
    loads, _ = make()
    told = []
    leave = []

    def once(report):
        told.append(report)
        leave[0]()

    leave.append(loads.subscribe(GATEWAY, once))
    loads.subscribe(GATEWAY, told.append)
    stream = session(loads)
    stream.receive(request(cluster(STABLE)))
    stream.receive(request(cluster(STABLE)))
    assert len(told) == 3


# -- Broken input ----------------------------------------------------------------------------------------------------


def test_the_node_is_read_of_the_first_request_alone():
    node = Node(id="envoy-1", cluster=GATEWAY)
    assert node_of(request(cluster(STABLE), node=node)).cluster == GATEWAY
    assert node_of(request(cluster(STABLE))) is None
    assert node_of(b"") is None
    loads, _ = make()
    stream = session(loads)
    stream.receive(request(cluster(STABLE, locality(1)), node=node))
    stream.receive(request(cluster(STABLE, locality(1)), node=Node(id="x", cluster="models/other")))
    stream.receive(b"\x0a\x02\xff\xff" + request(cluster(STABLE, locality(1))))  # no node at all, and nobody reads it
    assert loads.reports(GATEWAY) == {STABLE: load(3)}
    assert loads.gateways() == [GATEWAY]


def test_the_parts_of_a_node_belong_together():
    parts = request(node=Node(id="envoy-1")) + request(node=Node(cluster=GATEWAY))
    assert (node_of(parts).id, node_of(parts).cluster) == ("envoy-1", GATEWAY)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x12", "ends in the middle of a field"),
        (b"\x12\x05\x0a", "reaches beyond its end"),
        (b"\x12\x80", "ends in the middle of a field"),
        (b"\x12\x80\x80\x80\x80\x80\x80", "too many bytes"),
        (b"\x07", "a broken field: tag 7"),
        (b"\x12\x03\x0a\x01\xff", "not UTF-8"),
        (b"\x12\x02\x12\x05", "LoadStatsRequest: ends in the middle of a field"),
    ],
)
def test_what_is_no_report_is_said(data, error):
    loads, _ = make()
    with pytest.raises(DecodeError, match=error):
        session(loads).receive(data)


@pytest.mark.parametrize("broken", [b"\x12", b"\x12\x03\x0a\x01\xff"])
def test_of_a_broken_report_nothing_is_taken(broken):
    loads, _ = make()
    stream = session(loads)
    stream.receive(request(cluster(STABLE, locality(1, 1, in_flight=3))))
    with pytest.raises(DecodeError):
        stream.receive(request(cluster(STABLE, locality(1, 1, in_flight=4))) + broken)
    assert loads.reports(GATEWAY) == {STABLE: load(1, 1, in_flight=3)}
    stream.close()
    assert loads.reports(GATEWAY) == {STABLE: load(1, 1)}


@pytest.mark.parametrize("read", [node_of, lambda data: session(make()[0]).receive(data)])
def test_a_report_is_bounded(read, monkeypatch):
    monkeypatch.setattr(module, "MAX_REPORT", 1_000)
    read(b"\x1a\xe5\x07" + bytes(997))
    with pytest.raises(DecodeError, match="1001 bytes, allowed 1000"):
        read(b"\x1a\xe6\x07" + bytes(998))


def test_a_report_of_very_many_clusters_is_refused():
    loads, _ = make()
    session(loads).receive(b"\x12\x00" * 10_000)
    with pytest.raises(DecodeError, match="more than 10000 clusters"):
        session(loads).receive(b"\x12\x00" * 10_001)


MANY = {
    "nodes": b"\x0a\x00" * 200_001,
    "the fields of a node": b"\x0a" + delimited(b"\x12\x00" * 200_001),
    "other fields": b"\x1a\x00" * 200_001,
    "fields in a group": b"\x1b" + b"\x20\x00" * 200_001 + b"\x1c",
    "localities of a cluster": b"\x12" + delimited(b"\x12\x00" * 100_001),
    "localities of all clusters": (b"\x12" + delimited(b"\x12\x00" * 10_000)) * 11,
    "intervals": b"\x12" + delimited(b"\x22\x00" * 200_001),
}


@pytest.mark.parametrize("what", MANY)
def test_no_report_takes_more_work_than_any_envoy_asks_for(what):
    """However short they are: 4 MiB could have two million fields."""
    loads, _ = make()
    read = node_of if "node" in what else session(loads).receive
    with pytest.raises(DecodeError, match="fields"):
        read(MANY[what])
    assert loads.reports(GATEWAY) == {}


def test_a_report_of_many_busy_clusters_is_taken():
    names = [f"models/iris/{number}" for number in range(6_000)]
    loads = Loads(lambda gateway, cluster: True)
    rows = [locality(9, 8, 1, 1)] * 3
    node = encode(LoadStatsRequest(node=Node(id="envoy", cluster=GATEWAY)))
    session(loads).receive(node + b"".join(request(cluster(name, *rows, dropped=1)) for name in names))
    assert loads.reports(GATEWAY).keys() == set(names)


@given(st.binary())
def test_any_bytes_are_a_report_or_an_error(data):
    loads = Loads(lambda gateway, cluster: True)
    stream = session(loads)
    for read in (node_of, stream.receive):
        with suppress(DecodeError):
            read(data)


figures = st.integers(min_value=0, max_value=2**64 - 1)
stats = st.builds(
    lambda name, rows: cluster(name, *(locality(*row) for row in rows)),
    st.sampled_from([STABLE, CANARY, "unknown"]),
    st.lists(st.tuples(figures, figures, figures, figures), max_size=3),
)


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(stats, max_size=4) | st.none())))
def test_figures_are_the_sums_of_what_was_said(steps):
    """Streams report in any order, and end (None); their sums hold at every step."""
    loads, _ = make()
    streams = [session(loads) for _ in range(3)]
    totals: dict[str, list[int]] = {}
    now: list[dict[str, int]] = [{}, {}, {}]
    for index, said in steps:
        now[index] = {}
        if said is None:
            streams[index].close()
            streams[index] = session(loads)
        else:
            streams[index].receive(request(*said))
        for one in said or ():
            if one.cluster_name == "unknown":
                continue
            total = totals.setdefault(one.cluster_name, [0, 0, 0])
            for row in one.upstream_locality_stats:
                total[0] += row.total_issued_requests
                total[1] += row.total_successful_requests
                total[2] += row.total_error_requests
            flying = sum(row.total_requests_in_progress for row in one.upstream_locality_stats)
            now[index][one.cluster_name] = now[index].get(one.cluster_name, 0) + flying
        assert loads.reports(GATEWAY) == {
            name: load(*total, in_flight=sum(each.get(name, 0) for each in now)) for name, total in totals.items()
        }
