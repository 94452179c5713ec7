# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace`` tells the waits of data apart: for what, and whose they are."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from delay_line import RIGHT, delay_line
from harness import HIERARCHY, new_cgroup, unique, wait_until
from packet_traces import delay, hand_over, joined, names, tracing_packets
from remote_python import RemotePython
from router_chain import chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packet_traces import PacketTraces

DELAY_S = 0.01
SIZE = 400
PAUSE_S = 0.06


def sums(traces: PacketTraces, stage: str) -> int:
    """Return the time of a stage in all, in nanoseconds."""
    return sum(row["total_ns"] for row in traces.tracer.rows("trace") if row["stage"] == stage)


@pytest.fixture
def ends() -> Iterator[tuple[RemotePython, RemotePython, str]]:
    """A sender, a reader who has another namespace, and his address."""
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        yield sender, reader, server.address(4)


def test_data_behind_a_hole(hook: str) -> None:
    """It waits for what is missing, and not for an application that reads at once."""
    with delay_line(DELAY_S) as line, ExitStack() as stack:
        sender, reader = (
            stack.enter_context(RemotePython(f"/run/netns/{each}"))
            for each in (line.left, line.right)
        )
        port = joined(sender, reader, RIGHT[4])
        sender.do("client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
        arguments = ("--hook", hook, "--dport", str(port))
        traces = stack.enter_context(tracing_packets(*arguments))
        summary = stack.enter_context(tracing_packets(*arguments, "--summary"))
        lost = line.lose(1)
        sender.do(f"client.sendall(bytes({SIZE}))")
        wait_until("the loss", lambda: line.lose(1) > lost)
        line.lose(0)
        sender.do(f"client.sendall(bytes({SIZE + 1}))")
        reader.do(f"left = {2 * SIZE + 1}\nwhile left: left -= len(served.recv(left))")
        behind = traces.one(payload=SIZE + 1, end="delivered")
        filler = traces.one(payload=SIZE, end="delivered")
        summary.tracer.stop()
        (part,) = summary.tracer.rows("slow_part")
    assert names(behind)[-3:] == ["tcp_receive", "in_order", "app_read"]
    assert (behind["out_of_order"], filler["out_of_order"]) == (True, False)
    assert "in_order" not in names(filler)
    assert delay(behind, "in_order") > DELAY_S * 1e9
    assert delay(behind, "app_read") < delay(behind, "in_order")
    assert part["part"] in ("hole", "retransmission")
    assert sums(summary, "in_order") > DELAY_S * 1e9


def test_a_late_reader_behind_a_hole(hook: str) -> None:
    """What it waited for the hole, and then for the application, are two stages."""
    with delay_line(DELAY_S) as line, ExitStack() as stack:
        sender, reader = (
            stack.enter_context(RemotePython(f"/run/netns/{each}"))
            for each in (line.left, line.right)
        )
        port = joined(sender, reader, RIGHT[4])
        sender.do("client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
        traces = stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port)))
        lost = line.lose(1)
        sender.do(f"client.sendall(bytes({SIZE}))")
        wait_until("the loss", lambda: line.lose(1) > lost)
        line.lose(0)
        sender.do(f"client.sendall(bytes({SIZE + 1}))")
        reader.do("poll = select.poll(); poll.register(served, select.POLLIN)")
        reader.do(f"poll.poll(); time.sleep({4 * PAUSE_S})")
        reader.do(f"left = {2 * SIZE + 1}\nwhile left: left -= len(served.recv(left))")
        behind = traces.one(payload=SIZE + 1, end="delivered")
    assert delay(behind, "in_order") > DELAY_S * 1e9
    assert delay(behind, "app_read") > 4 * PAUSE_S * 1e9


def test_nagle_waits_in_the_send_queue(
    ends: tuple[RemotePython, RemotePython, str], hook: str
) -> None:
    """The second of two small writes leaves when the first one is acknowledged."""
    sender, reader, address = ends
    with ExitStack() as stack:
        port = joined(sender, reader, address)
        reader.do("served.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)")
        arguments = ("--hook", hook, "--dport", str(port))
        traces = stack.enter_context(tracing_packets(*arguments))
        summary = stack.enter_context(tracing_packets(*arguments, "--summary"))
        sender.do(f"client.send(bytes({SIZE})); client.send(bytes({SIZE + 1}))")
        reader.do(f"left = {2 * SIZE + 1}\nwhile left: left -= len(served.recv(left))")
        row = traces.one(payload=SIZE + 1, end="delivered")
        summary.tracer.stop()
        (part,) = summary.tracer.rows("slow_part")
    assert names(row)[:3] == ["app_write", "nagle", "tcp_transmit"]
    assert delay(row, "nagle") > 10_000_000
    assert part["part"] == "nagle"


def test_a_window_that_is_closed(ends: tuple[RemotePython, RemotePython, str], hook: str) -> None:
    """More than the reader has room for waits with its sender."""
    sender, reader, address = ends
    with ExitStack() as stack:
        port = joined(sender, reader, address)
        traces = stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port)))
        sender.do("client.setblocking(False)")
        sender.do(
            "sent = 0\nwhile select.select([], [client], [], 0.2)[1]: sent += client.send(bytes(9999))"
        )
        size = sender.get("sent")
        reader.do(f"left = {size}\nwhile left: left -= len(served.recv(left))")
        rows = wait_until(
            str(size),
            lambda: [
                row for row in traces.of(dport=port, end="delivered") if "window" in names(row)
            ],
        )
    assert max(delay(row, "window") for row in rows) > 100_000_000
    assert names(rows[0])[:3] == ["app_write", "window", "tcp_transmit"]


def test_the_time_until_an_answer(ends: tuple[RemotePython, RemotePython, str], hook: str) -> None:
    sender, reader, address = ends
    with ExitStack() as stack:
        port = reader.listen(address)
        arguments = ("--hook", hook, "--port", str(port))
        traces = stack.enter_context(tracing_packets(*arguments))
        summary = stack.enter_context(tracing_packets(*arguments, "--summary", "--by", "role"))
        assert sender.connect(address, port, timeout=30) == "ok"
        reader.do("served = server.accept()[0]")
        for number in range(2):
            sender.do(f"client.sendall(bytes({SIZE + number}))")
            reader.do(f"served.recv({SIZE + number}); time.sleep({PAUSE_S})")
            reader.do(f"served.sendall(bytes({2 * SIZE + number})); served.sendall(bytes(7))")
            sender.do(f"left = {2 * SIZE + number + 7}")
            sender.do("while left: left -= len(client.recv(left))")
        answers = [traces.one(payload=2 * SIZE + number, sport=port) for number in range(2)]
        others = [row for row in traces.of() if row["answer_after_ns"]]
        summary.tracer.stop()
        server = next(each for each in summary.tracer.rows("slow_part") if each["role"] == "server")
    assert all(row["answer_after_ns"] / 1e9 > PAUSE_S for row in answers)
    assert len(others) == len(answers)
    assert server["part"] == "answer"


@pytest.mark.parametrize("which", ["reader", "sender"])
def test_each_side_has_its_own_stages(
    ends: tuple[RemotePython, RemotePython, str], which: str, hook: str
) -> None:
    """It is the reader who is late: also where the sender alone was asked for."""
    sender, reader, address = ends
    with ExitStack() as stack:
        port = joined(sender, reader, address)
        arguments = ("--hook", hook, "--summary", "--by", "pid", "--dport", str(port))
        chosen = {"sender": sender, "reader": reader}[which]
        traces = stack.enter_context(tracing_packets(*arguments, "--pid", str(chosen.pid)))
        hand_over(sender, reader, SIZE, PAUSE_S)
        traces.tracer.stop()
        rows = traces.tracer.rows("trace")
        parts = {row["pid"]: row["part"] for row in traces.tracer.rows("slow_part")}
    whose: dict[str, set[int]] = {}
    for row in rows:
        whose.setdefault(row["stage"], set()).add(row["pid"])
    assert whose["app_read"] == whose["tcp_receive"] == {reader.pid}
    assert whose["dev_xmit"] == {sender.pid}
    assert parts[reader.pid] == "application"
    assert parts[sender.pid] != "application"


def test_a_sender_whose_name_is_not_known_yet(
    ends: tuple[RemotePython, RemotePython, str], hook: str
) -> None:
    """What a container receives is shown, also if its sender's cgroup is new."""
    sender, reader, address = ends
    parent = HIERARCHY / "lxc"
    parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        old = stack.enter_context(new_cgroup(parent, unique()))
        (old / "cgroup.procs").write_text(str(reader.pid))
        stack.callback((HIERARCHY / "cgroup.procs").write_text, str(reader.pid))
        port = reader.listen(address)
        arguments = ("--hook", hook, "--dport", str(port), "--container", old.name)
        traces = stack.enter_context(tracing_packets(*arguments))
        summary = stack.enter_context(tracing_packets(*arguments, "--summary"))
        new = stack.enter_context(new_cgroup(parent, unique()))
        (new / "cgroup.procs").write_text(str(sender.pid))
        stack.callback((HIERARCHY / "cgroup.procs").write_text, str(sender.pid))
        assert sender.connect(address, port, timeout=30) == "ok"
        reader.do("served = server.accept()[0]")
        for number in range(5):
            hand_over(sender, reader, SIZE + number)
        rows = [traces.one(payload=SIZE + number, end="delivered") for number in range(5)]
        summary.tracer.stop()
        counts = {row["stage"]: row["count"] for row in summary.tracer.rows("trace")}
    assert {(row["container"], row["role"]) for row in rows} == {(old.name, "server")}
    assert counts["app_read"] == len(rows)
    assert counts["dev_xmit"] >= len(rows)
