# SPDX-License-Identifier: BSD-2-Clause
"""The least that each command shows on every kernel, without containers' runtimes: `make test-vm`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from compare import inner
from drops import dropping
from harness import (
    CGNET,
    HIERARCHY,
    PATIENCE_S,
    check,
    netns_inode,
    run,
    tracing,
    unused_port,
    wait_until,
)
from owner_lab import Server
from router_chain import chain

if TYPE_CHECKING:
    from pathlib import Path

    from owner_lab import Stage

BURSTS = 20
NOBODY = "198.51.100.7", "02:00:00:00:00:01"


def path_of(stage: Stage) -> str:
    return f"/run/netns/{stage.netns}"


def test_connect(hook: str, group: Path, port: int) -> None:
    refusing = unused_port()
    with tracing("--hook", hook, "--cgroup", str(group)) as tracer:
        run("connect", "127.0.0.1", port)
        made = run("connect", "127.0.0.1", port, 2, cgroups=(group,))
        made += run("connect", "127.0.0.1", refusing, cgroups=(group,))
        made += run("connect", "::1", refusing, cgroups=(group,))
        check(tracer, made, cgroup=inner(group, HIERARCHY), syn_retrans=0)
    assert [row["result"] for row in made] == ["ok", "ok", "ECONNREFUSED", "ECONNREFUSED"]


def test_connlat(hook: str, group: Path, port: int) -> None:
    with tracing("--hook", hook, "--cgroup", str(group), command="connlat") as tracer:
        made = run("connect", "127.0.0.1", port, 3, cgroups=(group,))
        run("connect", "127.0.0.1", port)
        for row in check(tracer, made, cgroup=inner(group, HIERARCHY)):
            assert row["latency_us"] > 0


def test_connect_counts(hook: str, group: Path, port: int) -> None:
    """Two tables that change places, and a trie of networks."""
    filters = ("--cgroup", str(group), "--daddr", "127.0.0.0/8")
    with tracing("--hook", hook, "-c", "--by", "result", *filters) as tracer:
        run("connect", "127.0.0.1", port, 5, cgroups=(group,))
        run("connect", "127.0.0.1", unused_port(), 2, cgroups=(group,))
        run("connect", "::1", 1, cgroups=(group,))
        counts = {row["result"]: row["count"] for row in tracer.stop()}
    assert counts == {"ok": 5, "ECONNREFUSED": 2}


def test_rtt(hook: str, stage: Stage) -> None:
    """Both ends, each with its owner, in a histogram; the server listened before."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    with tracing(
        "--hook", hook, "--by", "pid,role", "--netns", path_of(stage), command="rtt"
    ) as tracer:
        listener.talk(client, 1, BURSTS)
        rows = {row["pid"]: row for row in tracer.stop()}
    assert {client.pid, server.pid} <= rows.keys(), rows
    for player, role in ((client, "client"), (server, "server")):
        row = rows[player.pid]
        assert row["role"] == role
        assert row["count"] >= BURSTS
        assert 0 < row["min_us"] <= row["p50_us"] <= row["max_us"]
        assert sum(bucket[2] for bucket in row["buckets"]) == row["count"]


def test_rtt_samples(hook: str, stage: Stage) -> None:
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    how = ("--slower", "0us", "--role", "client", "--netns", path_of(stage))
    with tracing("--hook", hook, *how, command="rtt") as tracer:
        listener.talk(client, 1, BURSTS)
        wait_until(lambda: f"{BURSTS}: {tracer}", lambda: len(tracer.rows()) > BURSTS)
        # Perf buffers, one for each CPU, keep the order only of what is read together.
        rows = sorted(tracer.stop(), key=lambda row: row["ts_ns"])
    assert {(row["pid"], row["owner_source"], row["role"]) for row in rows} == {
        (client.pid, "learned", "client")
    }
    assert [row["handshake"] for row in rows] == [True] + (len(rows) - 1) * [False]


def test_retrans(hook: str) -> None:
    """A SYN to a neighbour that isn't there: a row for each time that it is sent again."""
    with chain(0) as (client, _), client.remote() as sender:
        client.run("ip", "route", "add", NOBODY[0], "dev", "e0")
        client.run("ip", "neigh", "replace", NOBODY[0], "lladdr", NOBODY[1], "dev", "e0")
        how = ("--hook", hook, "--netns", f"/run/netns/{client.netns}", "--cause", "syn")
        with (
            tracing(*how, command="retrans") as tracer,
            tracing(*how, "-c", command="retrans") as counting,
        ):
            sender.connect(NOBODY[0], 9)
            (row, *_) = tracer.wait_for(1)
            tracer.stop()
            sender.do("client.close()")
            counts = counting.stop()
    told = (row["pid"], row["owner_source"], row["role"], row["attempt"], row["segs"], row["dport"])
    assert told == (sender.pid, "learned", "client", 1, 1, 9)
    assert sum(each["count"] for each in counts) >= 1
    assert {each["cause"] for each in counts} == {"syn"}


def test_life(hook: str, stage: Stage) -> None:
    """Who listened before is known, too."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    with tracing("--hook", hook, "--netns", path_of(stage), command="life") as tracer:
        near = client.do("connect", client.address, server.address, listener.port)
        far = listener.accept()
        client.do("stream", near, 500)
        assert server.do("receive", far, 500) == 500
        server.do("stream", far, 70)
        assert client.do("receive", near, 70) == 70
        client.do("close", near)
        assert server.do("receive", far, 1) == 0
        server.do("close", far)
        wait_until(lambda: f"both ends: {tracer}", lambda: len(tracer.rows()) == 2)
        rows = {row["role"]: row for row in tracer.stop()}
    ends = {"client": (client.pid, 500, 70, "local"), "server": (server.pid, 70, 500, "peer")}
    for role, (pid, sent, received, closed_by) in ends.items():
        row = rows[role]
        assert (row["pid"], row["tx_bytes"], row["rx_bytes"]) == (pid, sent, received), row
        assert (row["closed_by"], row["close_cause"]) == (closed_by, "fin")
        assert row["duration_us"] > 0


def test_drop(hook: str, netns: str) -> None:
    """A SYN for a closed port has no socket."""
    port = unused_port()
    with dropping("--hook", hook, "--netns", f"/run/netns/{netns}") as drops:
        run("connect", "127.0.0.1", port, netns=netns)
        row = drops.one("tcp_v4_rcv", dport=port)
    assert (row["tcp_flags"], row["saddr"], row["netns"]) == ("S", "127.0.0.1", netns_inode(netns))
    assert row["reason"] in ("NO_SOCKET", None)
    assert row["location"].startswith("tcp_v4_rcv")


def test_drop_counts(hook: str, netns: str) -> None:
    port = unused_port()
    how = ("-c", "--by", "reason,dport", "--netns", f"/run/netns/{netns}")
    with tracing("--hook", hook, *how, command="drop") as tracer:
        run("connect", "127.0.0.1", port, 7, netns=netns)
        counts = {row["dport"]: row["count"] for row in tracer.stop()}
    assert counts[port] == 7


def test_containers() -> None:
    """None is invented where no runtime has one."""
    done = subprocess.run(
        [CGNET, "containers", "-o", "json"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(row["type"] == "container" and row["container_id"] for row in rows)
