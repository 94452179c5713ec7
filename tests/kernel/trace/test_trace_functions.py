# SPDX-License-Identifier: BSD-2-Clause
"""Stages that are functions of the kernel: each is seen in its place, or named as missing here."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from harness import CGNET, Row, in_netns, tracing, wait_until
from packet_traces import (
    HOOKS,
    OF_FUNCTIONS,
    PacketTraces,
    every_name,
    hand_over,
    joined,
    tracing_packets,
)
from router_chain import chain, rules_everywhere

from cgnet.kernel import variants
from cgnet.kernel.probes import FENTRY, FEXIT, KPROBE, KRETPROBE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from two_containers import Place

NEEDS = {None: (), "fentry": (FENTRY, FEXIT), "kprobe": (KPROBE, KRETPROBE)}
TOLD = {"ip_out", "ip_rcv", "tcp_rcv", "tcp_backlog", "sock_queue", "netfilter"}
SENT = [
    "nf_output",
    "ip_out",
    "nf_postrouting",
    "dev_queue",
    "dev_xmit",
    "netif_rx",
    "netif_receive",
]
SENT_ON = ["ip_rcv", "nf_prerouting", "nf_forward", *SENT[1:]]
TAKEN = ["ip_rcv", "nf_prerouting", "nf_input", "tcp_rcv", "tcp_receive", "sock_queue", "app_read"]
MOST = 24  # of a packet's stages
SIZE = 321
CLOSED = 9
RULES = 5000


def ways(way: str | None) -> tuple[str, ...]:
    return ("--functions", way) if way else ()


def said_missing(tracer: Any) -> set[str]:
    said = " ".join(line for line in tracer.said if "not seen here" in line)
    return {name for name in TOLD if name in said}


def missing(tracer: Any) -> set[str]:
    """Return the stages of functions that are said not to be seen, at the start and at the end."""
    tracer.stop()
    summary = json.loads(tracer.lines[-1])
    found = TOLD & set(summary["not_seen"])
    assert said_missing(tracer) == found
    return found


def without(stages: list[str], gone: set[str]) -> list[str]:
    """Return the stages that are seen; whether TCP's backlog is in the way is left to chance."""
    hooks = HOOKS if "netfilter" in gone else set()
    return [name for name in stages if name not in gone | hooks | {"tcp_backlog"}]


def takes(way: str | None) -> bool | None:
    """Tell whether this kernel lets programs run at functions; None: only a trial tells."""
    if way == "none":
        return False
    if way == "kprobe.multi":
        return None
    if way is None:
        return True if takes("fentry") or takes("kprobe") else None
    return all(variants.works(feature).ok for feature in NEEDS[way])


@pytest.fixture(scope="module")
def containers() -> Iterator[list[Place]]:
    """A client, a router and a server, with rules of the firewall in every hook."""
    with chain(1) as places, rules_everywhere(places):
        yield places


def check_missing(gone: set[str], way: str | None) -> None:
    """All or nothing on kernels that are known: the functions have their names there."""
    expected = takes(way)
    assert gone in (set(), TOLD)
    assert expected is None or gone == (set() if expected else TOLD)


@pytest.mark.parametrize(
    ("way", "family"),
    [
        (None, 4),
        (None, 6),
        ("fentry", 4),
        ("kprobe.multi", 6),
        ("kprobe", 4),
        ("kprobe", 6),
        ("none", 4),
    ],
)
def test_a_routed_packet(containers: list[Place], way: str | None, family: int) -> None:
    client, _, server = containers
    with (
        tracing_packets(*ways(way)) as traces,
        client.remote() as sender,
        server.remote() as reader,
    ):
        port = joined(sender, reader, server.address(family))
        hand_over(sender, reader, SIZE)
        row = traces.one(payload=SIZE, dport=port)
        syn = traces.one(tcp_flags="S", dport=port)
        gone = missing(traces.tracer)
    check_missing(gone, way)
    expected = ["tcp_transmit", *SENT, *SENT_ON, *TAKEN]
    assert without(every_name(row), set()) == without(expected, gone)
    assert row["end"] == "delivered"
    assert (row["pid"], row["direction"], row["role"]) == (sender.pid, "tx", "client")
    until = expected[: expected.index("tcp_receive")]
    assert without(every_name(syn), set())[: len(without(until, gone))] == without(until, gone)
    for stage in row["stages"]:
        assert stage["verdict"] == ("accept" if stage["at"] in HOOKS else None)
    netns = [stage["netns"] for stage in row["stages"]]
    assert list(dict.fromkeys(netns)) == [place.inode for place in containers]


@pytest.mark.parametrize("way", [None, "kprobe"])
@pytest.mark.parametrize("hook_at", [("output", 0), ("forward", 1), ("input", 2)])
def test_the_hook_that_drops(
    containers: list[Place], way: str | None, hook_at: tuple[str, int]
) -> None:
    """Its verdict is the stage before the drop. What output drops reaches no tracepoint before."""
    name, number = hook_at
    with (
        tracing_packets(
            "--hook", "raw_tp", "--drops", "--dport", str(CLOSED), *ways(way)
        ) as traces,
        containers[0].remote() as remote,
        containers[number].firewall(name, f"tcp dport {CLOSED} drop"),
    ):
        assert remote.connect(containers[2].address(4), CLOSED) in ("EINPROGRESS", "EPERM")
        early = name == "output" and "netfilter" in said_missing(traces.tracer)
        row = None if early else traces.one(dport=CLOSED)
        gone = missing(traces.tracer)
    check_missing(gone, way)
    if row is None:
        assert traces.of() == []
        return
    last = every_name(row)[-2:]
    assert last[-1] == "drop"
    if "netfilter" in gone:
        assert last[0] not in OF_FUNCTIONS
    else:
        assert (last[0], row["stages"][-2]["verdict"]) == (f"nf_{name}", "drop")
        assert row["stages"][-2]["netns"] == containers[number].inode
    assert (row["pid"], row["tcp_flags"]) == (remote.pid, "S")


@pytest.mark.parametrize("way", [None, "kprobe", "none"])
def test_the_backlog_of_a_socket(containers: list[Place], way: str | None) -> None:
    """On the loopback the answer comes while the sender still has its socket."""
    server = containers[2]
    with (
        tracing_packets("--netns", str(server.path), *ways(way)) as traces,
        server.remote() as sender,
        server.remote() as reader,
    ):
        port = joined(sender, reader, "127.0.0.1")

        def waited() -> list[Row]:
            hand_over(sender, reader, SIZE)
            return [row for row in traces.of(sport=port) if "tcp_backlog" in every_name(row)]

        found = wait_until("a packet in the backlog", waited) if takes(way) else []
        gone = missing(traces.tracer)
    assert bool(found) == ("tcp_backlog" not in gone) or takes(way) is None
    for row in found:
        names = every_name(row)
        assert names[names.index("tcp_backlog") - 1] == "tcp_rcv"


@pytest.mark.parametrize("way", ["fentry", "kprobe", "none"])
def test_a_stage_that_nothing_tells_of_cant_be_asked_for(way: str) -> None:
    arguments = ("--functions", way, "--stage", "nf_forward>1s", "--duration", "0.1")
    done = subprocess.run([CGNET, "trace", *arguments], capture_output=True, text=True)
    assert done.returncode == (0 if takes(way) else 4)
    assert ("--stage nf_forward: nothing tells of it" in done.stderr) != takes(way)


def test_doctor_names_them() -> None:
    done = subprocess.run([CGNET, "doctor", "-o", "json"], capture_output=True, text=True)
    commands = {each["name"]: each for each in json.loads(done.stdout)["commands"]}
    stages = commands["trace"]["stages"]
    assert {each["stage"].partition(" of ")[0] for each in stages} == TOLD
    for each in stages:
        assert (each["way"] is None) == (each["function"] is None)
        assert each["way"] is not None or each["why"]
    if takes(None):
        assert all(each["way"] for each in stages)
    text = subprocess.run([CGNET, "doctor"], capture_output=True, text=True).stdout
    assert all(each["stage"] in " ".join(text.split()) for each in stages)


def test_of_too_many_stages_the_last_is_kept(hook: str) -> None:
    """The end of a long way is told, and how long all of it took."""
    with chain(5) as places, ExitStack() as stack:
        client, server = (stack.enter_context(each.remote()) for each in (places[0], places[-1]))
        traces: PacketTraces = stack.enter_context(tracing_packets("--hook", hook))
        port = joined(client, server, places[-1].address(4))
        hand_over(client, server, SIZE, 0.05)
        row = traces.one(payload=SIZE, dport=port)
    assert len(row["stages"]) == MOST
    assert every_name(row)[-1] == "app_read"
    assert row["end"] == "delivered"
    assert row["total_ns"] >= 50_000_000


def test_people_are_told_once_and_in_a_line(containers: list[Place]) -> None:
    arguments = ("--netns", str(containers[2].path), "--functions", "none")
    with tracing(*arguments, command="trace", output="table") as tracer:
        tracer.stop()
    (line,) = (line for line in tracer.said if "not seen here" in line)
    assert line.startswith("cgnet: not seen here: ")
    assert all(name in line for name in TOLD)
    assert len(line) < 160


def test_rules_that_are_slow_are_netfilters(containers: list[Place], tmp_path: Path) -> None:
    """Where netfilter's time can't be told from others', this is said."""
    client, _, server = containers
    rule = "add rule inet every input ip saddr 192.0.2.{} counter\n"
    (tmp_path / "rules").write_text("".join(rule.format(i % 250) for i in range(RULES)))
    in_netns(server.netns, "nft", "-f", str(tmp_path / "rules"))
    with (
        tracing_packets("--dport", str(CLOSED), "--summary") as traces,
        client.remote() as remote,
    ):
        for _ in range(20):
            assert remote.connect(server.address(4), CLOSED, timeout=30) == "ECONNREFUSED"
        gone = missing(traces.tracer)
        (record,) = traces.tracer.rows("slow_part")
    if "netfilter" in gone:
        assert (record["part"], record["stage"]) == ("stack", "drop")
        assert "or netfilter" in record["text"]
    else:
        assert (record["part"], record["stage"]) == ("netfilter", "nf_input")
