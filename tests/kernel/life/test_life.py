# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet life``: how much connections carried, also those that were open before, or are open now."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from compare import inner
from delay_line import RIGHT, delay_line
from harness import HIERARCHY, Workload, new_cgroup, run, tracing, wait_until
from lives import rows_of, the_end, within
from owner_lab import Server

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row, Tracer
    from hidden_events import Witness
    from owner_lab import Player, Stage

MANY = 10_000
# Of each of traffic.ENDINGS: what the first one's row tells, and the second one's.
TOLD = {
    "_fin": (("local", "fin", "FIN_WAIT2"), ("peer", "fin", "LAST_ACK")),
    "_reset": (("local", "rst", "ESTABLISHED"), ("peer", "rst", "ESTABLISHED")),
    "_unread": (("local", "rst", "ESTABLISHED"), ("peer", "rst", "ESTABLISHED")),
    "_disconnected": (("local", "rst", "ESTABLISHED"), ("peer", "rst", "ESTABLISHED")),
    "_half": (("local", "fin", "FIN_WAIT2"), ("peer", "fin", "LAST_ACK")),
    "_answer_too_late": (("local", "fin", "FIN_WAIT2"), ("peer", "rst", "CLOSE_WAIT")),
}
ONE_MORE = {"_unread", "_half"}  # byte that the second one sends


def expected(made: Row) -> list[tuple[Any, ...]]:
    """Return both rows. After a reset it isn't known what was acknowledged: None."""
    flow = made["sport"], made["daddr"], made["dport"]
    rows = []
    for role, sent, received in (
        ("client", made["sent"], made["answered"]),
        ("server", made["answered"], made["sent"]),
    ):
        is_first = role == made["first"]
        told = TOLD[made["end"]][not is_first]
        more = made["end"] in ONE_MORE
        tx = sent + (more and not is_first) if told[1] == "fin" else None
        rows.append((role, *flow, *told, tx, received + (more and is_first)))
    return rows


def told(row: Row) -> tuple[Any, ...]:
    """Return what ``expected`` has."""
    if row["role"] == "client":
        flow = row["sport"], row["daddr"], row["dport"]
    else:
        flow = row["dport"], row["saddr"], row["sport"]
    names = ("closed_by", "close_cause", "tcp_state")
    tx = row["tx_bytes"] if row["close_cause"] == "fin" else None
    return row["role"], *flow, *(row[name] for name in names), tx, row["rx_bytes"]


def test_ten_thousand_ends(group: Path, witness: Witness) -> None:
    """Two rows for each connection, none doubled, whatever another cgroup does."""
    with new_cgroup(HIERARCHY) as other, ExitStack() as stack:
        tracers = [
            stack.enter_context(
                tracing("--hook", hook, "--cgroup", str(group), "--buffer", "32M", command="life")
            )
            for hook in ("tp_btf", "raw_tp")
        ]
        noise = Workload("load", 4000, 1, cgroups=(other,))
        noise.begin()
        made = run("endings", MANY, cgroups=(group,))
        noise.finish()
        assert len(made) == MANY
        wanted = Counter(row for each in made for row in expected(each))
        for tracer in tracers:
            wait_until(
                lambda t=tracer: f"rows: {t}",
                lambda t=tracer: len(t.lines) >= 2 * MANY - len(witness.changes()),
            )
            rows = tracer.stop()
            (summary,) = tracer.rows("summary")
            assert (summary["lost"], summary["unknown_owners"]) == (0, 0)
            seen = Counter(map(told, rows))
            unseen = len(witness.changes())
            assert sum((wanted - seen).values()) <= unseen, list(wanted - seen)[:3]
            assert sum((seen - wanted).values()) <= unseen, list(seen - wanted)[:3]
            assert {(row["cgroup"], row["pid"]) for row in rows} == {
                (inner(group, HIERARCHY), made[0]["pid"])
            }


@pytest.mark.parametrize("loss", [0, 0.03])
@pytest.mark.parametrize("congestion", ["cubic", "bbr"])
def test_bytes(stage: Stage, loss: float, congestion: str) -> None:
    """Both ways at once; connections that both hooks saw begin, and that they found."""
    sizes = ((300_000, 1), (0, 200_001), (70_000, 150_000), (0, 0))
    client, server = stage.player(stage.a), stage.player(stage.b)
    with delay_line(0.005) as line, ExitStack() as stack:
        client.do("enter", line.left)
        server.do("enter", line.right)
        listener = Server(server, address=RIGHT[4])

        def connect() -> tuple[int, int, int]:
            near = client.do("connect", "", RIGHT[4], listener.port)
            far = listener.accept()
            for player, fd in ((client, near), (server, far)):
                player.do("set", fd, 6, 13, congestion)  # TCP_CONGESTION
            return near, far, client.do("local_port", near)

        before = [connect() for _ in sizes]
        tracers = [
            stack.enter_context(tracing("--hook", hook, *within(line.left), command="life"))
            for hook in ("tp_btf", "raw_tp")
        ]
        after = [connect() for _ in sizes]
        line.lose(loss)
        for pairs in (before, after):
            for (near, far, port), (up, down) in zip(pairs, sizes, strict=True):
                exchange((client, near), (server, far), up, down)
                for tracer in tracers:
                    check_bytes(tracer, client, port, up, down, seeded=pairs is before)
        for tracer in tracers:
            assert (sum(row["retrans"] for row in tracer.rows()) > 0) == (loss > 0)


def exchange(near: tuple[Player, int], far: tuple[Player, int], up: int, down: int) -> None:
    (client, ours), (server, theirs) = near, far
    client.do("spawn_stream", ours, up)
    server.do("spawn_stream", theirs, down)
    server.begin("receive", theirs, up)
    assert client.do("receive", ours, down) == down
    assert server.finish() == up
    client.do("close", ours)
    assert server.do("receive", theirs, 1) == 0
    server.do("close", theirs)


def check_bytes(
    tracer: Tracer, client: Player, port: int, up: int, down: int, *, seeded: bool
) -> None:
    row = the_end(tracer, port)
    assert (row["tx_bytes"], row["rx_bytes"]) == (up, down), row
    assert (row["closed_by"], row["close_cause"], row["pid"]) == ("local", "fin", client.pid)
    assert row["tx_segs"] >= up / 1460
    assert row["rx_segs"] >= down / 1460
    if seeded:
        assert (row["role"], row["duration_us"], row["handshake_us"]) == (None, None, None)
        assert row["owner_source"] in ("seeded", "learned")
    else:
        assert (row["role"], row["owner_source"]) == ("client", "learned")
        assert row["handshake_us"] >= 10_000
        assert row["duration_us"] > 0
    assert row["min_rtt_us"] is None or row["srtt_us"] >= row["min_rtt_us"] >= 10_000


def test_a_socket_that_connects_again(hook: str, stage: Stage) -> None:
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    options = ("--hook", hook, "--role", "client", *within(stage.netns))
    with tracing(*options, command="life") as tracer:
        near = client.do("connect", client.address, server.address, listener.port)
        first, far = client.do("local_port", near), listener.accept()
        client.do("send", near, 3)
        assert server.do("receive", far, 3) == 3
        client.do("disconnect", near)
        second = client.do("connect_again", near, server.address, listener.port)
        again = listener.accept()
        client.do("stream", near, 500)
        assert server.do("receive", again, 500) == 500
        client.do("close", near)
        for fd in (far, again):
            server.do("close", fd)
        the_end(tracer, second)
        rows = [row for row in tracer.stop() if row["daddr"] == server.address]
    names = ("sport", "tx_bytes", "closed_by", "close_cause", "rst_reason", "role")
    reason = "TCP_STATE" if hook == "tp_btf" else None
    assert [tuple(row[name] for name in names) for row in rows] == [
        (first, 3, "local", "rst", reason, "client"),
        (second, 500, "local", "fin", None, "client"),
    ]


def test_filters(stage: Stage) -> None:
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    chosen = {
        "--min-duration 300ms": ["long"],
        "--min-bytes 1000": ["much"],
        "--closed-by peer": ["server"],
        "--close-cause rst": ["reset"],
        "--close-cause rst --close-cause fin --closed-by local": [
            "long",
            "much",
            "little",
            "reset",
        ],
        "--close-cause !rst,timeout --closed-by !peer": ["long", "much", "little"],
    }
    with ExitStack() as stack:
        mine = within(stage.netns)
        tracers = {
            how: stack.enter_context(
                tracing("--hook", "tp_btf", "--role", "client", *how.split(), *mine, command="life")
            )
            for how in chosen
        }
        servers = stack.enter_context(tracing("--role", "server", *mine, command="life"))
        ports = {}
        for name, size in (
            ("long", 1),
            ("much", 600),
            ("little", 499),
            ("server", 1),
            ("reset", 1),
        ):
            near = client.do("connect", client.address, server.address, listener.port)
            ports[name], far = client.do("local_port", near), listener.accept()
            client.do("stream", near, size)
            assert server.do("receive", far, size) == size
            server.do("stream", far, size)
            assert client.do("receive", near, size) == size
            if name == "long":
                client.do("pause", 0.35)
            if name == "server":
                server.do("close", far)
                assert client.do("receive", near, 1) == 0
            client.do("close", near, "reset" if name == "reset" else "")
            if name != "server":
                server.do("close", far)
        wait_until(
            lambda: f"five: {servers}",
            lambda: sum(row["saddr"] == server.address for row in servers.rows()) == 5,
        )
        assert {row["role"] for row in servers.rows()} == {"server"}
        for how, names in chosen.items():
            wait_until(
                lambda how=how: f"{how}: {tracers[how]}",
                lambda how=how, names=names: all(rows_of(tracers[how], ports[n]) for n in names),
            )
            shown = [row["sport"] for row in tracers[how].stop() if row["pid"] == client.pid]
            assert shown == [ports[name] for name in names], how
