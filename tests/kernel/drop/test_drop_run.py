# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet drop`` as a whole: what is left out, filters, counts, stacks, a storm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from drops import dropping, functions, last, of, owned
from harness import tracing, wait_until
from segments import send, tcp_packet

if TYPE_CHECKING:
    from remote_python import RemotePython
    from two_containers import Place, TwoContainers

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9


def refuse(
    containers: TwoContainers, remote: RemotePython, port: int = PORT, count: int = 1
) -> None:
    """Knock at a closed port of the server."""
    for _ in range(count):
        assert remote.connect(containers.server.address(4), port, timeout=5) == "ECONNREFUSED"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--reason", "NO_SOCKET"), True),
        (("--reason", "SKB_DROP_REASON_NO_SOCKET,TCP_CSUM"), True),
        (("--reason", "!NO_SOCKET"), False),
        (("--reason", "TCP_CSUM"), False),
        (("--reason-class", "application"), True),
        (("--reason-class", "!application"), False),
        (("--reason-class", "firewall,peer"), False),
        (("--state", "LISTEN"), False),
        (("--state", "!LISTEN"), True),
        (("--dev", "s0"), True),
        (("--dev", "!s0"), False),
        (("--dev", "lo"), False),
        (("--dport", str(PORT)), True),
        (("--dport", "10"), False),
        (("--container", "CLIENT"), False),
        (("--container", "SERVER"), True),
        (("--reason-class", "!firewall"), True),
        (("-6",), False),
        (("--saddr", "10.0.0.0/8"), True),
        (("--daddr", "192.0.2.0/24"), False),
    ],
)
def test_filters(containers: TwoContainers, arguments: tuple[str, ...], shown: bool) -> None:
    names = {"CLIENT": containers.client.container, "SERVER": containers.server.container}
    given = [names.get(each, each) for each in arguments]
    with (
        dropping(*given, *of(containers.server)) as drops,
        dropping(*of(containers.server)) as every,
        containers.client.remote() as remote,
    ):
        refuse(containers, remote)
        every.one("tcp_v4_rcv", dport=PORT)
        drops.tracer.stop()
    assert bool(drops.tracer.rows()) is shown


def test_counts_by_reason(containers: TwoContainers, hook: str) -> None:
    server = containers.server
    by = ("--count", "--by", "container,reason,location,dport")
    with dropping("--hook", hook, *by, *of(server)) as drops, containers.client.remote() as remote:
        refuse(containers, remote, PORT, 5)
        refuse(containers, remote, PORT + 1, 3)
        drops.tracer.stop()
    rows = drops.tracer.rows()
    assert [(row["dport"], row["count"]) for row in rows] == [(PORT, 5), (PORT + 1, 3)]
    for row in rows:
        assert row["container"] == server.container
        assert row["reason"] == "NO_SOCKET"
        assert row["location"].startswith("tcp_v4_rcv+")


def test_counts_by_stack_every_interval(containers: TwoContainers, hook: str) -> None:
    """Stacks that are the same are one; the sum of all prints is what was dropped."""
    by = ("--count", "--by", "reason,stack", "-i", "0.2")
    with dropping("--hook", hook, *by, *of(containers.server)) as drops:
        with containers.client.remote() as remote:
            for _ in range(20):
                refuse(containers, remote, count=10)
        drops.tracer.stop()
    rows = drops.tracer.rows()
    assert sum(row["count"] for row in rows) == 200
    assert all("tcp_v4_rcv" in functions(row) for row in rows)


def test_folded_stacks(containers: TwoContainers, hook: str) -> None:
    server = containers.server
    arguments = ("--hook", hook, "--stacks", "folded", *of(server))
    with (
        tracing(*arguments, command="drop", output="table") as tracer,
        containers.client.remote() as remote,
    ):
        refuse(containers, remote, count=7)
        tracer.stop()
    lines = [line.rsplit(" ", 1) for line in tracer.lines]
    assert sum(int(count) for _, count in lines) == 7
    for stack, _ in lines:
        frames = stack.split(";")
        assert frames[0] == server.container
        assert frames[-1] == "tcp_v4_rcv"
        assert "+0x" not in stack


def test_no_stacks(containers: TwoContainers, hook: str) -> None:
    arguments = ("--hook", hook, "--stacks", "none", *of(containers.server))
    with dropping(*arguments) as drops, containers.client.remote() as remote:
        refuse(containers, remote)
        row = wait_until("a row", lambda: drops.of(dport=PORT))[0]
    assert row == row | owned(containers.server) | {"stack": [], "direction": "rx"}


@FAMILIES
@pytest.mark.parametrize(
    ("hook", "before"), [("tp_btf", True), ("tp_btf", False), ("raw_tp", False)]
)
def test_syns_that_a_full_queue_swallowed(
    containers: TwoContainers, family: int, hook: str, before: bool
) -> None:
    """Who listened before is found by an iterator, which comes with tp_btf alone."""
    client, server = containers.client, containers.server
    with client.remote() as remote, server.remote() as serving:
        port = serving.listen(server.address(family), backlog=0) if before else 0
        with dropping("--hook", hook, "--syn-drops", *of(server)) as drops:
            port = port or serving.listen(server.address(family), backlog=0)
            assert remote.connect(server.address(family), port, "first", timeout=5) == "ok"
            remote.connect(server.address(family), port, "second")
            row = drops.one("tcp_rcv_state_process", netns=server.inode)
    assert row == row | {
        "reason": "TCP_LISTEN_OVERFLOW",
        "reason_class": "application",
        "container": server.container,
        "pid": serving.pid,
        "tcp_state": "LISTEN",
        "tcp_flags": "S",
        "dport": port,
        "direction": "rx",
    }


def storm(containers: TwoContainers, remote: RemotePython, count: int) -> None:
    """As many SYNs as one process can send."""
    source, target = (containers.client.address(4), 4000), (containers.server.address(4), PORT)
    send(remote, containers, tcp_packet(source, target), count)


STORM = 100_000


def test_storm_is_counted_exactly(containers: TwoContainers, hook: str) -> None:
    server = containers.server
    arguments = (
        "--hook",
        hook,
        "--count",
        "--by",
        "container,reason",
        "-i",
        "0.5",
        "--sport",
        "4000",
    )
    with (
        server.firewall("input", f"tcp dport {PORT} counter drop"),
        dropping(*arguments) as drops,
        containers.client.remote() as remote,
    ):
        storm(containers, remote, STORM)
        dropped = wait_until("the last one", lambda: counted(server) == STORM) and STORM
        drops.tracer.stop()
    rows = drops.tracer.rows()
    assert {(row["container"], row["reason"]) for row in rows} == {
        (server.container, "NETFILTER_DROP")
    }
    assert sum(row["count"] for row in rows) == dropped


def counted(place: Place) -> int:
    """Return the packets of the one rule that counts."""
    found = json.loads(place.run("nft", "-j", "list", "ruleset"))["nftables"]
    rules = [each["rule"]["expr"] for each in found if "rule" in each]
    (counter,) = [part["counter"] for rule in rules for part in rule if "counter" in part]
    return int(counter["packets"])


def test_storm_with_a_limit(containers: TwoContainers, hook: str) -> None:
    """What isn't shown is counted as lost, each one once."""
    server = containers.server
    arguments = ("--hook", hook, "--max-rate", "50", "--buffer", "64K", "--sport", "4000")
    with (
        server.firewall("input", f"tcp dport {PORT} counter drop"),
        dropping(*arguments) as drops,
        containers.client.remote() as remote,
    ):
        storm(containers, remote, STORM)
        wait_until("the last one", lambda: counted(server) == STORM)
        summary = last(drops.tracer)
    lost = [row["count"] for row in drops.tracer.rows("lost") if row["where"] in ("ring", "rate")]
    assert summary["records"] + sum(lost) == STORM
    assert summary["records"] == len(drops.tracer.rows())
