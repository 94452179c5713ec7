# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets`` lists what ``ss -tanmoi`` does in each namespace, and whose it is."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import harness
import pytest
import ss_lines
from compare import inner
from harness import (
    HIERARCHY,
    PYTHON,
    ip,
    netns_inode,
    new_cgroup,
    new_netns,
    tracing,
    wait_until,
)
from socket_lists import by_flow, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Row

WORKER = Path(__file__).parents[1] / "support/open_states.py"
ADDRESSES = ("127.0.0.1", "::1")


def within(cgroup: Path | None, netns: str, *command: str) -> list[str]:
    """Return a command that runs in a cgroup, and in a namespace."""
    inside = ["ip", "netns", "exec", netns, *command]
    if not cgroup:
        return inside
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), *inside]


@contextmanager
def worker(netns: str, idle: int = 0, cgroup: Path | None = None) -> Iterator[dict[str, Row]]:
    """Run open_states.py in a namespace, and in a cgroup; yield its ports by address."""
    ip("-n", netns, "route", "replace", "192.0.2.0/24", "dev", "lo")
    ip("-n", netns, "addr", "add", "192.0.2.1/32", "dev", "lo")
    process = subprocess.Popen(
        within(cgroup, netns, PYTHON, str(WORKER), str(idle), *ADDRESSES),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield json.loads(process.stdout.readline()) | {"pid": process.pid}
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_all_states_in_three_namespaces() -> None:
    with ExitStack() as stack:
        spaces = [stack.enter_context(new_netns()) for _ in range(3)]
        made = {each: stack.enter_context(worker(each, idle=5)) for each in spaces}
        begin = time.monotonic()
        before = {each: ss_lines.in_namespace(each) for each in spaces}
        rows, summary = listed()
        after = {each: ss_lines.in_namespace(each) for each in spaces}
        apart_us = round((time.monotonic() - begin) * 1e6)
        for netns in spaces:
            ours = [row for row in rows if row["netns"] == netns_inode(netns)]
            ss_lines.check(ours, ss_lines.settled(before[netns], after[netns]), apart_us)
            states = {row["state"] for row in ours}
            assert states >= {
                "ESTABLISHED", "LISTEN", "TIME_WAIT", "FIN_WAIT2", "CLOSE_WAIT", "SYN_RECV", "SYN_SENT",
            }  # fmt: skip
            check_values(ours, made[netns])
        assert summary["missed"] == summary["lost"] == 0
        assert summary["namespaces"] >= 4


def check_values(rows: list[Row], made: dict[str, Row]) -> None:
    for address in ADDRESSES:
        ports = made[address]

        def of(name: str, side: str = "sport", ports: Row = ports, address: str = address) -> Row:
            found = [
                row
                for row in rows
                if row[side] == ports[name] and row["family"] == (6 if ":" in address else 4)
            ]
            assert len(found) == 1, (name, found)
            return found[0]

        assert of("established")["role"] == "client"
        far = of("established", "dport")
        assert (far["role"], far["recv_q"]) == ("server", 700)
        assert of("keepalive")["timer"] == "keepalive"
        full = of("full")
        assert full["timer"] in ("probe", "on")
        assert full["unsent"] > 0
        assert full["limited_by"] in ("rwnd", "sndbuf")
        assert full["busy_us"] >= full["rwnd_limited_us"] > 0
        assert of("time_wait")["timer"] == "timewait"
        assert 0 < of("time_wait")["timer_us"] <= 60_000_000
        assert of("orphan")["holders"] is None
        if "syn_sent" in ports:
            assert of("syn_sent")["state"] == "SYN_SENT"
        waiting = [
            row for row in rows if row["sport"] == ports["waiting"] and row["state"] == "LISTEN"
        ]
        assert [(row["queue"], row["backlog"], row["recv_q"]) for row in waiting] == [(3, 64, 3)]


def test_owners_of_what_is_held_and_of_what_is_not(netns: str) -> None:
    with new_cgroup(HIERARCHY) as cgroup, worker(netns, cgroup=cgroup) as made:
        rows, _ = listed("--netns", f"/run/netns/{netns}")
        held = [row for row in rows if row["owner_source"] == "seeded"]
        assert {(row["pid"], row["cgroup"]) for row in held} == {
            (made["pid"], inner(cgroup, HIERARCHY))
        }
        server = made["127.0.0.1"]
        syn = [row for row in rows if row["state"] == "SYN_RECV"]
        assert len(syn) == 2
        children = [
            row
            for row in rows
            if row["sport"] == server["waiting"] and row["state"] == "ESTABLISHED"
        ]
        assert len(children) == 3
        for row in (*syn, *children):
            assert (row["owner_source"], row["cgroup"]) == (
                "inherited",
                inner(cgroup, HIERARCHY),
            ), row
        kept = [row for row in rows if row["state"] == "TIME_WAIT"]
        assert [row["owner_source"] for row in kept] == ["unknown"] * 2  # the client's


@pytest.mark.parametrize("way", ["cgroup", "pid", "port"])
def test_filters(netns: str, way: str) -> None:
    with new_cgroup(HIERARCHY) as cgroup, worker(netns, idle=3, cgroup=cgroup) as made:
        port = made["::1"]["server"]
        option = {
            "cgroup": ("--cgroup", str(cgroup)),
            "pid": ("--pid", str(made["pid"])),
            "port": ("--port", str(port)),
        }[way]
        every, _ = listed("--netns", f"/run/netns/{netns}")
        some, _ = listed(*option)
        if way == "port":
            expected = [row for row in every if port in (row["sport"], row["dport"])]
        elif way == "pid":  # of orphans the kernel may know the cgroup alone
            expected = [row for row in every if row["pid"] == made["pid"]]
        else:
            expected = [row for row in every if row["cgroup"] == inner(cgroup, HIERARCHY)]
        assert by_flow(some).keys() == by_flow(expected).keys()


def test_listeners(netns: str) -> None:
    with worker(netns) as made:
        rows, _ = listed("--listeners", "--netns", f"/run/netns/{netns}")
        assert {row["state"] for row in rows} == {"LISTEN"}
        assert len(rows) == 6
        full = [row for row in rows if row["sport"] == made["127.0.0.1"]["waiting"]]
        assert [(row["queue"], row["queue_high"]) for row in full] == [(3, 3)]


def test_states(netns: str) -> None:
    with worker(netns, idle=4):
        place = ("--netns", f"/run/netns/{netns}")
        rows, _ = listed(*place)
        counts, summary = listed("--states", "--by", "state,daddr", *place)
        for count in counts:
            same = [
                row
                for row in rows
                if (row["state"], row["daddr"]) == (count["state"], count["daddr"])
            ]
            assert len(same) == count["count"]
        assert sum(count["count"] for count in counts) == len(rows)
        assert summary["records"] == len(counts)
        unknown = sum(row["owner_source"] == "unknown" for row in rows)
        assert summary["unknown_owners"] == unknown


def test_the_summary_is_of_the_rows_that_were_printed(netns: str) -> None:
    with worker(netns, idle=4):
        place = ("--netns", f"/run/netns/{netns}", "--limit", "1")
        (row,), summary = listed(*place)
        assert summary["records"] == 1
        assert summary["unknown_owners"] == (row["owner_source"] == "unknown")


def test_ports(netns: str) -> None:
    first, last = 40000, 40099
    ip("netns", "exec", netns, "sysctl", "-q", f"net.ipv4.ip_local_port_range={first} {last}")
    with worker(netns, idle=10) as made:
        rows, _ = listed("--ports", "--netns", f"/run/netns/{netns}")
        server = made["127.0.0.1"]["server"]
        to_server = [row for row in rows if (row["daddr"], row["dport"]) == ("127.0.0.1", server)]
        assert len(to_server) == 1
        assert (to_server[0]["first_port"], to_server[0]["last_port"]) == (first, last)
        theirs = [
            row for row in ss_lines.in_namespace(netns)
            if row["dport"] == server and row["daddr"] == "127.0.0.1"
        ]  # fmt: skip
        assert to_server[0]["used"] == len(theirs)
        assert to_server[0]["left"] == 100 - len(theirs)


SHARE = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""


def test_a_socket_of_two_processes_in_two_cgroups(netns: str) -> None:
    with new_cgroup(HIERARCHY) as one, new_cgroup(HIERARCHY) as other:
        process = subprocess.Popen(
            within(one, netns, PYTHON, "-c", SHARE),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            (other / "cgroup.procs").write_text(str(child))
            rows, _ = listed("--netns", f"/run/netns/{netns}")
            assert [row["pid"] for row in rows] == [process.pid]
            assert rows[0]["cgroup"] == inner(one, HIERARCHY)
            told = [(each["pid"], each["cgroup"]) for each in rows[0]["holders"]]
            assert told == sorted(
                [(process.pid, inner(one, HIERARCHY)), (child, inner(other, HIERARCHY))]
            )
            rows, _ = listed("--cgroup", str(other))  # the holder that was asked for
            assert [(row["pid"], row["cgroup"]) for row in rows] == [
                (child, inner(other, HIERARCHY))
            ]
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.kill()
            process.wait()
            process.stdout.close()


def test_listings_repeat_and_tell_what_came_since(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "FORCED", [])  # there is no transport to force
    command = ("sockets", "-o", "json", "-i", "0.3", "--netns", f"/run/netns/{netns}")
    with tracing(*command[1:], command="sockets") as tracer, worker(netns) as made:
        port = made["127.0.0.1"]["server"]

        def of_server() -> list[Row]:
            return [
                row
                for row in tracer.rows("sockets")
                if (row["sport"], row["state"]) == (port, "LISTEN")
            ]

        wait_until(lambda: str(tracer), lambda: len(of_server()) >= 3)
        tracer.stop()
        ages = [row["age_us"] for row in of_server()]
        assert ages == sorted(ages)
        assert 0 <= ages[0] < ages[-1]
