# SPDX-License-Identifier: BSD-2-Clause
"""Which packets ``cgnet trace`` shows, and how: ends, slow ones, sums of many, filters, blocks."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from harness import CGNET, HIERARCHY, new_cgroup, tracing, wait_until
from packet_traces import SENT, TAKEN, check_times, delay, hand_over, joined, names, tracing_packets
from remote_python import RemotePython

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import TwoContainers

PAUSE_S = 0.05
SIZE = 321
PORT = 9
LOCAL = "127.0.0.1"


@pytest.fixture
def pair(netns: str) -> Iterator[tuple[RemotePython, RemotePython]]:
    """Two processes of one namespace."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(RemotePython(f"/run/netns/{netns}")) for _ in range(2))
        yield one, other


def test_firewall_drops_a_packet(containers: TwoContainers, hook: str) -> None:
    client, router = containers.client, containers.router
    with (
        tracing_packets("--hook", hook, "--drops", "--container", client.container) as traces,
        client.remote() as remote,
        containers.server.remote() as serving,
        router.firewall("forward", f"tcp dport {PORT} drop"),
    ):
        joined(remote, serving, containers.server.address(4))  # what isn't dropped isn't shown
        assert remote.connect(containers.server.address(4), PORT) == "EINPROGRESS"
        row = traces.one(dport=PORT)
        ends = {each["end"] for each in traces.of()}
    assert names(row) == [*SENT, "drop"]
    assert row == row | {
        "container": client.container, "role": "client", "end": "dropped",
        "reason": "NETFILTER_DROP", "tcp_flags": "S",
    }  # fmt: skip
    assert row["location"].startswith(("nf_", "nft_"))
    assert row["stages"][-1]["netns"] == router.inode
    assert ends == {"dropped"}


def test_sent_again(containers: TwoContainers, hook: str) -> None:
    """A copy names the packet that had the same data before."""
    client, server = containers.client, containers.server
    with ExitStack() as stack:
        every = stack.enter_context(
            tracing_packets("--hook", hook, "--container", client.container)
        )
        again = stack.enter_context(tracing_packets("--hook", hook, "--retrans"))
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        with containers.router.firewall("forward", f"tcp dport {port} drop"):
            sender.do(f"client.sendall(bytes({SIZE}))")
            first = every.one(payload=SIZE, dport=port, end="dropped", retrans_of=None)
        reader.do(f"served.recv({SIZE})")
        last = every.one(payload=SIZE, dport=port, end="delivered")
        copy = again.one(payload=SIZE, dport=port, end="delivered")
    copies = sorted(every.of(payload=SIZE, dport=port), key=lambda row: row["ts_ns"])
    assert [row["packet"] for row in copies[:-1]] == [row["retrans_of"] for row in copies[1:]]
    assert copies[0] == first
    assert (last["seq"], copy["seq"]) == (first["seq"], first["seq"])
    assert all(row["retrans_of"] for row in again.of(dport=port))


@pytest.mark.parametrize("option", [("--slower", "40ms"), ("--stage", "app_read>40ms")])
def test_slow_ones(
    netns: str, pair: tuple[RemotePython, RemotePython], option: tuple[str, str], hook: str
) -> None:
    with tracing_packets("--hook", hook, "--netns", netns, *option) as traces:
        port = joined(*pair, LOCAL)
        hand_over(*pair, SIZE)
        hand_over(*pair, SIZE + 1, PAUSE_S)
        traces.one(payload=SIZE + 1, dport=port)
        rows = traces.tracer.stop()
    assert all(row["total_ns"] > 40_000_000 for row in rows)
    assert SIZE not in {row["payload"] for row in rows}
    if option[0] == "--stage":
        assert all(delay(row, "app_read") > 40_000_000 for row in rows)


def test_never_read(netns: str, pair: tuple[RemotePython, RemotePython], hook: str) -> None:
    """At the end of a run it is told what still waits."""
    with tracing_packets("--hook", hook, "--netns", netns) as traces:
        port = joined(*pair, LOCAL)
        pair[0].do(f"client.sendall(bytes({SIZE}))")
        wait_until("its acknowledgement", lambda: traces.of(sport=port, tcp_flags="A", payload=0))
        row = next(each for each in traces.tracer.stop() if each["payload"] == SIZE)
    assert (names(row), row["end"]) == ([*SENT, "tcp_receive"], "timeout")
    assert row["pid"] == pair[0].pid
    check_times(row)


@pytest.mark.parametrize("by", ["container", "role,dport"])
def test_summary(netns: str, pair: tuple[RemotePython, RemotePython], by: str, hook: str) -> None:
    """Percentiles of each stage, and what part of the time it took; nothing for each packet."""
    count = 20
    port = joined(*pair, LOCAL)
    arguments = ("--hook", hook, "--netns", netns, "--dport", str(port), "--summary", "--by", by)
    with tracing_packets(*arguments) as traces:
        for _ in range(count):
            hand_over(*pair, SIZE, 0.002)
        rows = traces.tracer.stop()
    stages = {row["stage"]: row for row in rows}
    assert stages["app_read"]["count"] == count
    assert set(stages) >= {*SENT[1:], *TAKEN}
    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=0.01 * len(rows))
    read = stages["app_read"]
    assert read["share"] == max(row["share"] for row in rows)
    assert 1_000_000 <= read["min_ns"] <= read["p50_ns"] <= read["p99_ns"] <= read["max_ns"] * 1.25
    for field in by.split(","):
        assert field in read
    if "dport" in by:
        assert read["dport"] == port


def test_filters(netns: str, pair: tuple[RemotePython, RemotePython], hook: str) -> None:
    with new_cgroup(HIERARCHY) as group, ExitStack() as stack:
        (group / "cgroup.procs").write_text(str(pair[1].pid))
        port = joined(*pair, LOCAL)
        options = {
            "port": ("--port", str(port)), "sport": ("--sport", str(port)),
            "cgroup": ("--cgroup", str(group)), "pid": ("--pid", str(pair[0].pid)),
            "none": ("--port", f"!{port}"), "six": ("-6",), "addr": ("--addr", "127.0.0.0/8"),
        }  # fmt: skip
        shown = {
            name: stack.enter_context(tracing_packets("--hook", hook, "--netns", netns, *option))
            for name, option in options.items()
        }
        joined(*pair, LOCAL)
        hand_over(*pair, SIZE)
        pair[0].do("client.close()")
        again = int(pair[1].get("server.getsockname()[1]"))
        for name in ("cgroup", "pid", "addr", "none"):
            shown[name].one(payload=SIZE, dport=again)
        of_reader = shown["cgroup"].one(payload=SIZE, dport=again)
    assert of_reader["pid"] == pair[1].pid
    assert all(row["pid"] == pair[0].pid for row in shown["pid"].of())
    assert not shown["port"].of(dport=again)
    assert all(row["sport"] == port for row in shown["sport"].of())
    assert not shown["six"].of()


def test_blocks(netns: str, pair: tuple[RemotePython, RemotePython]) -> None:
    with tracing("--netns", netns, "--slower", "40ms", command="trace", output="table") as tracer:
        port = joined(*pair, LOCAL)
        hand_over(*pair, SIZE, PAUSE_S)
        wait_until("a block", lambda: any("delivered" in line for line in list(tracer.lines)))
        lines = list(tracer.lines)
    head = next(line for line in lines if f"payload {SIZE}" in line)
    block = lines[lines.index(head) :][:9]
    assert f":{port} tx [PA] seq " in head
    assert [line[2:].split()[2] for line in block[1:8]] == [*SENT, *TAKEN]
    assert [line[0] for line in block[1:8]] == [" "] * 6 + ["*"]
    assert "waiting for the application" in block[7]
    assert "@netns " in block[2]
    assert block[8].startswith("  total ")
    assert "delivered" in block[8]


def test_schema(netns: str, pair: tuple[RemotePython, RemotePython]) -> None:
    with tracing_packets("--netns", netns) as traces:
        port = joined(*pair, LOCAL)
        hand_over(*pair, SIZE)
        row = traces.one(payload=SIZE, dport=port)
        summary = json.loads(traces.tracer.stop() and traces.tracer.lines[-1])
    own = {
        "role": str, "packet": int, "tcp_flags": str, "seq": int, "ack": int, "len": int,
        "payload": int, "segs": int, "direction": str, "stages": list, "total_ns": int,
        "end": str, "reason": type(None), "location": type(None), "retrans_of": type(None),
        "retrans_after_ns": type(None), "retransmitted": bool,
        "out_of_order": bool, "answer_after_ns": type(None),
        "schema": int, "type": str, "time": str, "ts_ns": int, "netns": int, "family": int,
        "saddr": str, "sport": int, "daddr": str, "dport": int, "cgroup": str, "cgroup_id": str,
    }  # fmt: skip
    assert {key: type(row[key]) for key in own} == own
    assert {tuple(stage) for stage in row["stages"]} == {
        ("at", "delta_ns", "cpu", "dev", "netns", "container", "verdict")
    }
    assert (summary["type"], summary["lost"]) == ("summary", 0)


@pytest.mark.parametrize(
    "arguments",
    [("--stage", "nonsense>1ms"), ("--stage", "app_read"), ("--by", "role"), ("-i", "1")],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([CGNET, "trace", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert arguments[0].strip("-") in done.stderr or "interval" in done.stderr
