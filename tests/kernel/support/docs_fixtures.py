# SPDX-License-Identifier: BSD-2-Clause
"""The cgroups, processes and containers that the docs' command lines name.

They communicate all the time, so that commands print rows.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from harness import HIERARCHY, new_cgroup, unique, wait_until
from remote_python import RemotePython

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from two_containers import TwoContainers

GROUPS = ("kubepods/pod1", "online", "offline", "system.slice/nginx.service")
SERVED = (80, 443, 3306, 5432)
CLOSED = 8080
SERVE = """
import threading
served = 0
def serve(server):
    global served
    while True:
        with server.accept()[0] as sock:
            served += 1
            try:
                while data := sock.recv(65536):
                    sock.send(data)
            except ConnectionResetError:
                pass
for port in {ports}:
    server = socket.create_server(({address!r}, port), backlog=4096)
    threading.Thread(target=serve, args=(server,), daemon=True).start()
"""
# Connections end in three ways; the pause leaves CPU time to the tracer.
TALK = """
while True:
    for number, port in enumerate({ports}):
        try:
            with socket.create_connection(({address!r}, port)) as sock:
                sock.send(b"x" * 1000)
                sock.recv(65536)
                if number % 2:
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except ConnectionRefusedError:
            pass
    time.sleep(0.05)
"""
Had = dict[tuple[str, str], str]


def _names(top: Path, containers: TwoContainers, pid: int) -> Had:
    """Return the values to use instead of the docs' option values."""
    inside = f"/{top.name}"
    return {
        ("--cgroup", "/kubepods"): f"{inside}/kubepods",
        ("--cgroup", "/kubepods/*"): f"{inside}/kubepods/*",
        ("--cgroup", "/online"): f"{inside}/online",
        ("--cgroup", "/offline"): f"{inside}/offline",
        ("--cgroup", "/sys/fs/cgroup/system.slice/nginx.service"): str(top / GROUPS[-1]),
        ("--container", "web"): containers.server.container,
        ("--container", "batch"): containers.client.container,
        ("--unit", "nginx"): "nginx",
        ("--pid", "4711"): str(pid),
    }


@contextmanager
def readers(containers: TwoContainers) -> Iterator[Had]:
    """Set everything up; yield the values to use instead of the docs' option values."""
    client, server, router = containers.client, containers.server, containers.router
    with ExitStack() as stack:
        # Below a slice, systemd's units have their names.
        top = stack.enter_context(new_cgroup(HIERARCHY, f"{unique()}.slice"))
        for each in GROUPS:
            (top / each).mkdir(parents=True)
        serving = stack.enter_context(server.remote())
        serving.do(SERVE.format(address=server.address(4), ports=SERVED))
        tcp_clients = [stack.enter_context(client.remote())]
        tcp_clients += [
            stack.enter_context(RemotePython(router.path, (top / each,))) for each in GROUPS
        ]
        for tcp_client in tcp_clients:
            tcp_client.begin(TALK.format(address=server.address(4), ports=(*SERVED, CLOSED)))
        yield _names(top, containers, tcp_clients[-1].pid)
        assert all(tcp_client.is_busy() for tcp_client in tcp_clients)
        before = serving.get("served")
        wait_until("a connection", lambda: serving.get("served") > before)
