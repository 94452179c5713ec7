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
    from remote_python import Puppet
    from two_containers import Place, Street

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9


def refuse(street: Street, puppet: Puppet, port: int = PORT, count: int = 1) -> None:
    """Knock at a closed port of the server."""
    for _ in range(count):
        assert puppet.connect(street.server.address(4), port, timeout=5) == "ECONNREFUSED"


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
def test_filters(street: Street, arguments: tuple[str, ...], shown: bool) -> None:
    names = {"CLIENT": street.client.container, "SERVER": street.server.container}
    given = [names.get(each, each) for each in arguments]
    with (
        dropping(*given, *of(street.server)) as drops,
        dropping(*of(street.server)) as every,
        street.client.puppet() as puppet,
    ):
        refuse(street, puppet)
        every.one("tcp_v4_rcv", dport=PORT)
        drops.tracer.stop()
    assert bool(drops.tracer.rows()) is shown


def test_counts_by_reason(street: Street, hook: str) -> None:
    server = street.server
    by = ("--count", "--by", "container,reason,location,dport")
    with dropping("--hook", hook, *by, *of(server)) as drops, street.client.puppet() as puppet:
        refuse(street, puppet, PORT, 5)
        refuse(street, puppet, PORT + 1, 3)
        drops.tracer.stop()
    rows = drops.tracer.rows()
    assert [(row["dport"], row["count"]) for row in rows] == [(PORT, 5), (PORT + 1, 3)]
    for row in rows:
        assert row["container"] == server.container
        assert row["reason"] == "NO_SOCKET"
        assert row["location"].startswith("tcp_v4_rcv+")


def test_counts_by_stack_every_interval(street: Street, hook: str) -> None:
    """Stacks that are the same are one; the sum of all prints is what was dropped."""
    by = ("--count", "--by", "reason,stack", "-i", "0.2")
    with dropping("--hook", hook, *by, *of(street.server)) as drops:
        with street.client.puppet() as puppet:
            for _ in range(20):
                refuse(street, puppet, count=10)
        drops.tracer.stop()
    rows = drops.tracer.rows()
    assert sum(row["count"] for row in rows) == 200
    assert all("tcp_v4_rcv" in functions(row) for row in rows)


def test_folded_stacks(street: Street, hook: str) -> None:
    server = street.server
    arguments = ("--hook", hook, "--stacks", "folded", *of(server))
    with (
        tracing(*arguments, command="drop", output="table") as tracer,
        street.client.puppet() as puppet,
    ):
        refuse(street, puppet, count=7)
        tracer.stop()
    lines = [line.rsplit(" ", 1) for line in tracer.lines]
    assert sum(int(count) for _, count in lines) == 7
    for stack, _ in lines:
        frames = stack.split(";")
        assert frames[0] == server.container
        assert frames[-1] == "tcp_v4_rcv"
        assert "+0x" not in stack


def test_no_stacks(street: Street, hook: str) -> None:
    arguments = ("--hook", hook, "--stacks", "none", *of(street.server))
    with dropping(*arguments) as drops, street.client.puppet() as puppet:
        refuse(street, puppet)
        row = wait_until("a row", lambda: drops.of(dport=PORT))[0]
    assert row == row | owned(street.server) | {"stack": [], "direction": "rx"}


@FAMILIES
@pytest.mark.parametrize(
    ("hook", "before"), [("tp_btf", True), ("tp_btf", False), ("raw_tp", False)]
)
def test_syns_that_a_full_queue_swallowed(
    street: Street, family: int, hook: str, before: bool
) -> None:
    """Who listened before is found by an iterator, which comes with tp_btf alone."""
    client, server = street.client, street.server
    with client.puppet() as puppet, server.puppet() as serving:
        port = serving.listen(server.address(family), backlog=0) if before else 0
        with dropping("--hook", hook, "--syn-drops", *of(server)) as drops:
            port = port or serving.listen(server.address(family), backlog=0)
            assert puppet.connect(server.address(family), port, "first", timeout=5) == "ok"
            puppet.connect(server.address(family), port, "second")
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


def storm(street: Street, puppet: Puppet, count: int) -> None:
    """As many SYNs as one process can send."""
    source, target = (street.client.address(4), 4000), (street.server.address(4), PORT)
    send(puppet, street, tcp_packet(source, target), count)


STORM = 100_000


def test_storm_is_counted_exactly(street: Street, hook: str) -> None:
    server = street.server
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
        street.client.puppet() as puppet,
    ):
        storm(street, puppet, STORM)
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


def test_storm_with_a_limit(street: Street, hook: str) -> None:
    """What isn't shown is counted as lost, each one once."""
    server = street.server
    arguments = ("--hook", hook, "--max-rate", "50", "--buffer", "64K", "--sport", "4000")
    with (
        server.firewall("input", f"tcp dport {PORT} counter drop"),
        dropping(*arguments) as drops,
        street.client.puppet() as puppet,
    ):
        storm(street, puppet, STORM)
        wait_until("the last one", lambda: counted(server) == STORM)
        summary = last(drops.tracer)
    lost = [row["count"] for row in drops.tracer.rows("lost") if row["where"] in ("ring", "rate")]
    assert summary["records"] + sum(lost) == STORM
    assert summary["records"] == len(drops.tracer.rows())
