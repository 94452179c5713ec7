# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet retrans`` tells whether this host had dropped what is sent again: where, and why."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from counters import tcp_counters
from delay_line import RIGHT, delay_line
from harness import tracing, wait_until
from packet_traces import joined
from remote_python import RemotePython
from router_chain import chain, set_offload

from cgnet.kernel.symbols import Symbols
from cgnet.kernel.variants import HOOK, all_work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Row, Tracer
    from two_containers import Place

HOOKS = [each.code for each in HOOK.variants if all_work(each.needs).ok]
FAMILIES = pytest.mark.parametrize("family", [4, 6])
TELLS_REASONS = bool(Symbols().drop_reasons)
FIREWALL = "NETFILTER_DROP" if TELLS_REASONS else None
NETFILTER = ("nft_do_chain", "nf_hook_slow")
GATE = 7777  # the router's port, which it passes on to the server


@contextmanager
def both_hooks(place: Place, *options: str) -> Iterator[list[Tracer]]:
    """Yield a tracer for each hook, of a place's namespace."""
    where = ("--netns", str(place.path))
    with ExitStack() as stack:
        yield [
            stack.enter_context(tracing(*where, *options, "--hook", hook, command="retrans"))
            for hook in HOOKS
        ]


@contextmanager
def translation(router: Place, server: Place, family: int, port: int) -> Iterator[None]:
    """Have the router translate both addresses, and the port."""
    address = server.address(family)
    kind, target = ("ip", address) if family == 4 else ("ip6", f"[{address}]")
    text = "; ".join(
        (
            f"add table {kind} nat",
            f"add chain {kind} nat pre {{ type nat hook prerouting priority -100; }}",
            f"add rule {kind} nat pre tcp dport {GATE} dnat to {target}:{port}",
            f"add chain {kind} nat post {{ type nat hook postrouting priority 100; }}",
            f"add rule {kind} nat post tcp dport {port} masquerade",
        )
    )
    router.run("nft", text)
    try:
        yield
    finally:
        router.run("nft", "delete", "table", kind, "nat")


def grown(place: Place, name: str, before: int, by: int) -> bool:
    return tcp_counters(place.netns)[name] >= before + by


def first_rows(tracers: list[Tracer], **wanted: object) -> list[Row]:
    """Return each tracer's first row with these values."""
    return [
        wait_until(
            lambda tracer=tracer: f"{wanted}: {tracer}",
            lambda tracer=tracer: [row for row in tracer.rows() if wanted.items() <= row.items()],
        )[0]
        for tracer in tracers
    ]


def check_dropped(row: Row, packet: str, reason: str | None, *places: str) -> None:
    """Assert that a row tells of such a drop."""
    assert (row["dropped_here"], row["dropped_packet"], row["drop_reason"]) == (
        True, packet, reason,
    ), row  # fmt: skip
    assert row["dropped_at"].partition("+")[0].partition(".")[0] in places, row


@FAMILIES
def test_behind_a_translation(family: int) -> None:
    """A router drops what it has translated, when the packet has no socket any more."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        tracers = stack.enter_context(both_hooks(client))
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(family))
        stack.enter_context(translation(router, server, family, port))
        gate = router.address(family)
        assert sender.connect(gate, GATE, timeout=30) == "ok"
        reader.do("served = server.accept()[0]")
        before = tcp_counters(client.netns)["TcpRetransSegs"]
        with router.firewall("forward", f"tcp dport {port} drop"):
            sender.do("client.sendall(bytes(100))")
            wait_until("resends", lambda: grown(client, "TcpRetransSegs", before, 2))
        reader.do("left = 100\nwhile left: left -= len(served.recv(left))")
        for row in first_rows(tracers):
            assert row["dport"] == GATE
        for tracer in tracers:
            rows = tracer.stop()
            assert len(rows) >= 2
            for row in rows:
                check_dropped(row, "segment", FIREWALL, *NETFILTER)


@FAMILIES
def test_handshakes(family: int) -> None:
    """A SYN, its SYN-ACK, and the acknowledgement of that."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(family))
        of_client, of_server = (stack.enter_context(both_hooks(each)) for each in (client, server))
        for rule, packet in (
            (f"tcp dport {port} tcp flags == syn drop", "segment"),
            (f"tcp sport {port} tcp flags == (syn | ack) drop", "answer"),
            (f"tcp dport {port} tcp flags == ack drop", ""),
        ):
            start = [tcp_counters(each.netns)["TcpRetransSegs"] for each in (client, server)]
            waits = server if not packet else client
            with router.firewall("forward", rule):
                sender.connect(server.address(family), port)
                wait_until(
                    rule,
                    lambda waits=waits, start=start: grown(
                        waits, "TcpRetransSegs", start[waits is server], 1
                    ),
                )
            wait_until(
                "the handshake", lambda: sender.get("select.select([], [client], [], 0)[1] != []")
            )
            mine = sender.get("client.getsockname()[1]")
            if packet:
                for row in first_rows(of_client, sport=mine, cause="syn"):
                    check_dropped(row, packet, FIREWALL, *NETFILTER)
            if packet != "segment":
                for row in first_rows(of_server, dport=mine, cause="synack"):
                    which = "segment" if packet else "answer"
                    check_dropped(row, which, FIREWALL, *NETFILTER)


@FAMILIES
def test_in_the_senders_namespace(family: int) -> None:
    """Its firewall drops the first SYN, and lets the second one pass."""
    with chain(0) as (client, server), ExitStack() as stack:
        tracers = stack.enter_context(both_hooks(client))
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(family))
        with client.firewall("output", f"tcp dport {port} drop"):
            sender.connect(server.address(family), port)
        for row in first_rows(tracers, cause="syn"):
            check_dropped(row, "segment", FIREWALL, *NETFILTER)


@FAMILIES
def test_a_full_qdisc(family: int) -> None:
    """The router's shaper: large packets are cut before they wait, or not at all."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        tracers = stack.enter_context(both_hooks(client))
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        joined(sender, reader, server.address(family))
        number = router.devices.index("e0")
        stack.enter_context(router.shaper(number, rate="2mbit", burst="5000", limit="10000"))
        reader.begin("left = 300000\nwhile left: left -= len(served.recv(1 << 20))")
        sender.do("client.sendall(bytes(300000))")
        reader.end()
        reasons = {"QDISC_DROP", "QDISC_OVERLIMIT"} if TELLS_REASONS else {None}
        for row in first_rows(tracers, dropped_here=True):
            assert row["drop_reason"] in reasons, row
            assert row["dropped_packet"] == "segment"
        for tracer in tracers:
            told = [row["dropped_here"] for row in tracer.stop()]
            assert None not in told
            assert told.count(True) >= len(told) / 2


@FAMILIES
@pytest.mark.parametrize("large", [False, True])
def test_large_packets(family: int, large: bool) -> None:
    """A packet of many segments is dropped as one, and sent again in pieces."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        set_offload(client, "e0", tso=large, gso=large)
        port = joined(sender, reader, server.address(family))
        tracers = stack.enter_context(both_hooks(client))
        drops = stack.enter_context(
            tracing("--dport", str(port), "--stacks", "none", command="drop")
        )
        sender.do("client.sendall(b'0')")
        with router.firewall("forward", f"tcp dport {port} numgen inc mod 25 == 9 drop"):
            reader.begin("left = 4000001\nwhile left: left -= len(served.recv(1 << 20))")
            sender.do("client.sendall(bytes(4000000))")
            reader.end()
        shown = [sorted(tracer.stop(), key=lambda row: row["ts_ns"]) for tracer in tracers]
        dropped = [(row["ts_ns"], row["seq"], row["payload"]) for row in drops.stop()]
        for rows in shown:
            known = [row for row in rows if row["dropped_here"] is not None]
            assert known
            found = [row for row in known if row["dropped_here"]]
            for row in found:
                check_dropped(row, "segment", FIREWALL, *NETFILTER)
                assert any(overlap(seq, size, row) for _, seq, size in dropped), row
            # TCP takes some for lost that weren't, and a resend may be dropped before its own row.
            needed = [row for row in known if was_dropped(dropped, rows, row)]
            missed = [row for row in needed if not row["dropped_here"]]
            assert len(missed) <= len(needed) // 10, (missed, len(needed))


def was_dropped(dropped: list[tuple[int, int, int]], rows: list[Row], row: Row) -> bool:
    """Return whether a part of what is sent again was dropped since it was last sent again."""
    before = [
        each["ts_ns"]
        for each in rows
        if each["ts_ns"] < row["ts_ns"] and overlap(each["seq"], each["len"], row)
    ]
    since = max(before, default=0)
    return any(since < at < row["ts_ns"] and overlap(seq, size, row) for at, seq, size in dropped)


def overlap(seq: int, size: int, row: Row) -> bool:
    begin = (row["seq"] - seq) % 2**32
    return begin < size or (seq - row["seq"]) % 2**32 < row["len"]


@FAMILIES
def test_a_full_receive_buffer(family: int) -> None:
    """It becomes smaller than what was promised."""
    with chain(0) as (client, server), ExitStack() as stack:
        tracers = stack.enter_context(both_hooks(client))
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        joined(sender, reader, server.address(family))
        reader.do("served.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)")
        sender.do("client.settimeout(0)\ntry: client.send(bytes(1000000))\nexcept OSError: pass")
        for row in first_rows(tracers):
            assert row["dropped_here"] is True, row
            assert row["dropped_packet"] == "segment"
            assert row["dropped_at"].startswith("tcp_"), row
            if TELLS_REASONS:
                assert row["drop_reason"] in {"PROTO_MEM", "TCP_ZEROWINDOW", "SOCKET_RCVBUFF"}


@FAMILIES
def test_elsewhere(family: int) -> None:
    """What is lost on the way between hosts."""
    with delay_line(0.005) as line, ExitStack() as stack:
        place = ("--netns", f"/run/netns/{line.left}")
        tracers = [
            stack.enter_context(tracing(*place, "--hook", hook, command="retrans"))
            for hook in HOOKS
        ]
        sender, reader = (
            stack.enter_context(RemotePython(f"/run/netns/{each}"))
            for each in (line.left, line.right)
        )
        joined(sender, reader, RIGHT[family])
        line.lose(0.03)
        reader.begin("left = 1000000\nwhile left: left -= len(served.recv(1 << 20))")
        sender.do("client.sendall(bytes(1000000))")
        reader.end()
        for tracer in tracers:
            rows = tracer.stop()
            assert rows
            for row in rows:
                assert row["dropped_here"] is False, row
                assert (row["dropped_packet"], row["dropped_at"], row["drop_reason"]) == (
                    None, None, None,
                )  # fmt: skip
            assert tracer.rows("summary")[0]["dropped_unknown"] == {}


def test_before_the_start() -> None:
    """Whether this host dropped what was sent before isn't known."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        with router.firewall("forward", f"tcp dport {port} drop"):
            sender.do("client.sendall(bytes(100))")
            before = tcp_counters(client.netns)["TcpRetransSegs"]
            wait_until("a resend", lambda: grown(client, "TcpRetransSegs", before, 1))
            tracers = stack.enter_context(both_hooks(client))
            for row in first_rows(tracers, cause="timeout"):
                assert row["dropped_here"] is None, row


@FAMILIES
def test_a_full_accept_queue(family: int) -> None:
    """It swallows SYNs without a word: never "not here"."""
    with chain(0) as (client, server), ExitStack() as stack:
        tracers = stack.enter_context(both_hooks(client))
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(family), backlog=0)
        assert sender.connect(server.address(family), port, "one", timeout=30) == "ok"
        sender.connect(server.address(family), port, "two")
        for row in first_rows(tracers, cause="syn"):
            assert row["dropped_here"] is None, row
        for tracer in tracers:
            assert {row["dropped_here"] for row in tracer.stop()} == {None}
            assert tracer.rows("summary")[0]["dropped_unknown"].keys() == {"arrived"}
