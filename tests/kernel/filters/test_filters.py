# SPDX-License-Identifier: BSD-2-Clause
"""Every filter but --cgroup, with traffic that matches and traffic that doesn't."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from compare import only
from harness import Row, Workload, cgnet, ip, netns_inode, new_netns, run, tracing, wait_until

NOBODY = 65534


# -- owners


def test_pid_excluded(hook: str, group: Path, port: int) -> None:
    out = Workload("connect", "127.0.0.1", port, cgroups=(group,))
    with tracing("--hook", hook, "--pid", f"!{out.process.pid}") as tracer:
        made = run("connect", "127.0.0.1", port)
        only(tracer, made, out.go())


def test_pid_is_the_process_of_all_its_threads(hook: str, port: int) -> None:
    workload = Workload("by_thread", "127.0.0.1", port)
    with tracing("--hook", hook, "--pid", str(workload.process.pid)) as tracer:
        others = run("by_thread", "127.0.0.1", port)
        made = workload.go()
        assert made[0]["thread"] != made[0]["pid"] == workload.process.pid
        only(tracer, made, others)


def test_pid_of_a_thread_is_refused_and_names_the_process() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        done = cgnet("connect", "--pid", str(thread.native_id), "--duration", "0.1")
    finally:
        end.set()
        thread.join()
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr


def test_pid_that_is_used_again_is_another_process(hook: str, port: int) -> None:
    first = Workload("connect", "127.0.0.1", port)
    pid = first.process.pid
    with tracing("--hook", hook, "--pid", str(pid)) as tracer:
        wanted = first.go()

        def again() -> list[Row]:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            made = run("connect", "127.0.0.1", port)
            return made if made[0]["pid"] == pid else []

        others = wait_until("the same PID again", again)
        only(tracer, wanted, others)


@pytest.mark.parametrize("name", ["cgt-filter", "cgt-a-name-of-more-than-15"])
def test_comm(hook: str, port: int, name: str) -> None:
    with tracing("--hook", hook, "--comm", name) as tracer:
        others = run("as_comm", "cgt-filte", "127.0.0.1", port)
        made = run("as_comm", name, "127.0.0.1", port)
        (row,) = only(tracer, made, others)
    assert row["comm"] == name[:15]


def test_comm_excluded(hook: str, port: int) -> None:
    with tracing("--hook", hook, "--comm", "!cgt-out", "--comm", "!cgt-off") as tracer:
        others = run("as_comm", "cgt-out", "127.0.0.1", port)
        others += run("as_comm", "cgt-off", "127.0.0.1", port)
        only(tracer, run("as_comm", "cgt-in", "127.0.0.1", port), others)


@pytest.mark.parametrize("user", [str(NOBODY), "nobody"])
def test_uid(hook: str, port: int, user: str) -> None:
    with tracing("--hook", hook, "--uid", user) as tracer:
        others = run("as_user", 0, "127.0.0.1", port)
        others += run("as_user", NOBODY - 1, "127.0.0.1", port)
        made = run("as_user", NOBODY, "127.0.0.1", port)
        (row,) = only(tracer, made, others)
    assert row["uid"] == NOBODY


def test_uid_excluded(hook: str, port: int) -> None:
    with tracing("--hook", hook, "--uid", "!root", "--uid", f"!{NOBODY - 1}") as tracer:
        others = run("as_user", 0, "127.0.0.1", port)
        others += run("as_user", NOBODY - 1, "127.0.0.1", port)
        only(tracer, run("as_user", NOBODY, "127.0.0.1", port), others)


def test_uid_zero_is_no_wildcard(port: int) -> None:
    with tracing("--uid", "0") as tracer:
        others = run("as_user", NOBODY, "127.0.0.1", port)
        only(tracer, run("connect", "127.0.0.1", port), others)


def test_owner_filters_are_and(hook: str, group: Path, port: int) -> None:
    arguments = ["--uid", "nobody", "--cgroup", str(group), "--dport", str(port)]
    with tracing("--hook", hook, *arguments) as tracer:
        others = run("as_user", NOBODY, "127.0.0.1", port)
        others += run("as_user", 0, "127.0.0.1", port, cgroups=(group,))
        others += run("as_user", NOBODY, "127.0.0.1", 1, cgroups=(group,))
        only(tracer, run("as_user", NOBODY, "127.0.0.1", port, cgroups=(group,)), others)


# -- network namespaces


@pytest.mark.parametrize("form", ["PID", "path", "inode", "name"])
def test_netns(hook: str, netns: str, form: str) -> None:
    inside = Workload("connect", "127.0.0.1", 1, netns=netns)
    wait_until(
        "a process in it",
        lambda: Path(f"/proc/{inside.process.pid}/ns/net").stat().st_ino == netns_inode(netns),
    )
    value = {
        "PID": str(inside.process.pid),
        "path": f"/run/netns/{netns}",
        "inode": str(netns_inode(netns)),
        "name": netns,
    }[form]
    with new_netns() as other, tracing("--hook", hook, "--netns", value) as tracer:
        others = run("connect", "127.0.0.1", 1) + run("connect", "127.0.0.1", 1, netns=other)
        (row,) = only(tracer, inside.go(), others)
    assert row["netns"] == netns_inode(netns)


def test_netns_excluded(hook: str, netns: str) -> None:
    with tracing("--hook", hook, "--netns", f"!{netns}", "--netns", f"!{os.getpid()}") as tracer:
        others = run("connect", "127.0.0.1", 1, netns=netns) + run("connect", "127.0.0.1", 1)
        with new_netns() as other:
            only(tracer, run("connect", "127.0.0.1", 1, netns=other), others)


def test_netns_whose_inode_is_used_again(hook: str) -> None:
    with new_netns() as first:
        inode = netns_inode(first)
        tracer_of_it = tracing("--hook", hook, "--netns", first)
        tracer = tracer_of_it.__enter__()
        try:
            wanted = run("connect", "127.0.0.1", 1, netns=first)
            ip("netns", "del", first)
            others = wait_until("the same inode", lambda: connect_if_inode(inode))
            only(tracer, wanted, others)
        finally:
            tracer_of_it.__exit__(None, None, None)
            ip("netns", "add", first)  # which new_netns removes


def connect_if_inode(inode: int) -> list[Row]:
    with new_netns() as again:
        return run("connect", "127.0.0.1", 1, netns=again) if netns_inode(again) == inode else []
