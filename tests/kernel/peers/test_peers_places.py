# SPDX-License-Identifier: BSD-2-Clause
"""Both ends name each other: a published port, subflows of MPTCP, short lives, reused ports."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack, suppress
from socket import IPPROTO_MPTCP
from typing import TYPE_CHECKING

import pytest
from background import background
from both_ends import serving
from harness import HIERARCHY, in_netns, ip, new_cgroup, new_netns, tracing, wait_until
from podman import Podman
from remote_python import RemotePython
from two_containers import container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Row, Tracer

COMMANDS = (("connect", ("--all",)), ("life", ()))


def start(stack: ExitStack, *options: str) -> list[Tracer]:
    return [
        stack.enter_context(tracing("--peers", *options, *more, command=command))
        for command, more in COMMANDS
    ]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with new_netns() as host:
        made = Podman(tmp_path_factory.mktemp("podman") / "containers.conf", host)
        try:
            yield made
        finally:
            made.close()


def of(tracer: Tracer, pids: set[int], count: int) -> list[Row]:
    """Wait for so many rows of processes; return them."""

    def found() -> list[Row]:
        return [row for row in tracer.rows() if row["pid"] in pids]

    wait_until(lambda: f"{count} rows: {tracer}", lambda: len(found()) >= count)
    return found()


def test_a_published_port(podman: Podman) -> None:
    """A port of the host that podman's rules translate to the container's."""
    with ExitStack() as stack:
        network = podman.network("10.99.7.0/24")
        far = container(podman, stack, f"--network={network}", "--publish=18080:9000")
        near = container(podman, stack, f"--network={network}")
        server, client = (stack.enter_context(each.remote()) for each in (far, near))
        server.listen("0.0.0.0", 9000)
        tracers = start(stack)
        assert client.connect("10.99.7.1", 18080, timeout=10) == "ok"
        server.do("s, _ = server.accept(); s.send(b'x')")
        client.do("client.recv(1); client.close()")
        server.do("s.close()")
        for tracer in tracers:
            rows = of(tracer, {server.pid, client.pid}, 2)
            assert {
                row["role"]: (row["peer_container"], row["peer_pid"], row["peer_source"])
                for row in rows
            } == {
                "client": (far.container, server.pid, "socket"),
                "server": (near.container, client.pid, "socket"),
            }
            assert {row["dport"] for row in rows if row["role"] == "client"} == {18080}


SERVES = f"""
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {IPPROTO_MPTCP})
server.bind(("127.0.0.1", 0)); server.listen()
"""
CONNECTS = f"""
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {IPPROTO_MPTCP})
client.connect(("127.0.0.1", {{port}}))
"""


def test_subflows(netns: str, groups: tuple[Path, Path], hook: str) -> None:
    """A further subflow, which another process has the kernel open, is its connection's at both ends."""
    with ExitStack() as stack:
        place = f"/run/netns/{netns}"
        client, server = (stack.enter_context(RemotePython(place, (each,))) for each in groups)
        ip("-n", netns, "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2")
        server.do(SERVES)
        tracers = start(stack, "--hook", hook, "--netns", place)
        client.do(CONNECTS.format(port=server.get("server.getsockname()[1]")))
        server.do("s, _ = server.accept(); s.send(b'x')")
        client.do("client.recv(1); client.send(b'x')")
        server.do("s.recv(1)")
        ip("-n", netns, "addr", "add", "127.0.0.9/8", "dev", "lo")
        ip("-n", netns, "mptcp", "endpoint", "add", "127.0.0.9", "subflow")
        opened = of(tracers[0], {client.pid, server.pid}, 4)
        client.do("client.close()")
        server.do("s.close()")
        ended = of(tracers[1], {client.pid, server.pid}, 4)
        for row in (*opened, *ended):
            other = {"client": server.pid, "server": client.pid}[row["role"]]
            assert (row["peer_pid"], row["peer_source"]) == (other, "socket"), row
        assert {row["role"] for row in opened if "127.0.0.9" in (row["saddr"], row["daddr"])} == {
            "client", "server",
        }  # fmt: skip


# Containers of LXC, by their place, live for a connection each, one after the other at one address.
LIVES = """
import ctypes, json, os, socket, sys, time
from pathlib import Path
top, place, name, address, port = {args!r}
input()
found = []
for number in range({count}):
    cgroup = Path(top, "lxc", f"{{name}}-{{number}}")
    began = time.monotonic()
    cgroup.mkdir(parents=True)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
        with open(place) as netns:
            ctypes.CDLL(None).setns(netns.fileno(), 0x40000000)
        sock = socket.create_connection((address, port))
        sock.sendall(b"question")
        sock.recv(64)
        os.write(writer, str(sock.getsockname()[1]).encode())
        sock.close()
        os._exit(0)
    os.waitpid(child, 0)
    cgroup.rmdir()
    found.append((int(os.read(reader, 16)), cgroup.name, time.monotonic() - began))
    os.close(reader)
    os.close(writer)
print(json.dumps(found), flush=True)
input()
"""
LIVES_COUNT = 100


def test_containers_that_end_at_once(groups: tuple[Path, Path], netns: str, hook: str) -> None:
    """Each lives for some milliseconds, at the address of the one before it."""
    with new_netns() as there, ExitStack() as stack:
        ip("-n", netns, "link", "add", "a0", "type", "veth", "peer", "name", "b0", "netns", there)
        for place, device, address in ((netns, "a0", "10.98.1.1"), (there, "b0", "10.98.1.2")):
            ip("-n", place, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", place, "link", "set", device, "up")
        server, port = serving(stack, netns, "10.98.1.1", groups[1])
        args = (str(HIERARCHY), f"/run/netns/{there}", groups[0].name, "10.98.1.1", port)
        stack.callback(remove_empty, HIERARCHY / "lxc")
        client = stack.enter_context(background("", LIVES.format(args=args, count=LIVES_COUNT)))
        tracers = start(stack, "--hook", hook, "--port", str(port))
        client.say()
        made = json.loads(client.wait("["))
        names = {number: name for number, name, _ in made}
        assert sum(lived < 0.05 for _, _, lived in made) > LIVES_COUNT // 2
        for tracer in tracers:
            wait_until(lambda t=tracer: f"{t}", lambda t=tracer: len(t.rows()) >= 2 * LIVES_COUNT)
            named: Counter[str | None] = Counter()
            for row in tracer.rows():
                if row["role"] == "client":
                    name = names[row["sport"]]
                    assert (row["cgroup"], row["container"] or name) == (f"/lxc/{name}", name)
                    assert (row["peer_pid"], row["peer_source"]) == (server.pid, "socket"), row
                else:
                    name = names[row["dport"]]
                    told = row["peer_cgroup"], row["peer_container"] or name
                    assert told == (f"/lxc/{name}", name), row
                    named[row["peer_source"]] += 1
            assert named == {"socket": LIVES_COUNT}


def remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


# Clients that reuse few ports, many times over, to several servers; a reset frees a port at once.
REUSES = """
import random, socket, struct
addresses = {addresses!r}
print("begun", flush=True)
input()
for number in range({count}):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while sock.connect_ex(random.choice(addresses)):
        pass
    sock.sendall(b"question")
    sock.recv(64)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
print("done", flush=True)
input()
"""
REUSED_COUNT = 20_000


def test_reused_ports(netns: str) -> None:
    """Each pair of ports has many connections in turn: no name is wrong, nearly all are known."""
    in_netns(netns, "sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50250")
    with ExitStack() as stack:
        groups = [stack.enter_context(new_cgroup(HIERARCHY)) for _ in range(8)]
        servers = {
            port: server.pid
            for server, port in (
                serving(stack, netns, "127.0.0.1", group, 40000 + number)
                for number, group in enumerate(groups[:4])
            )
        }
        to = [("127.0.0.1", port) for port in servers]
        clients = [
            stack.enter_context(
                background(netns, REUSES.format(addresses=to, count=REUSED_COUNT // 4), (group,))
            )
            for group in groups[4:]
        ]
        for client in clients:
            client.wait("begun")
        tracers = start(stack, "--netns", f"/run/netns/{netns}", "--buffer", "64M")
        for client in clients:
            client.say()
        for client in clients:
            client.wait("done")
        for tracer in tracers:
            wait_until(
                lambda t=tracer: f"{len(t.lines)} {t}",
                lambda t=tracer: len(t.lines) >= 2 * REUSED_COUNT,
            )
            rows = tracer.stop()
            client_of = {
                row["conn_id"]: row["pid"]
                for row in rows
                if row["role"] == "client" and row["conn_id"]
            }
            named = Counter(row["peer_source"] for row in rows)
            for row in rows:
                right = (
                    servers[row["dport"]] if row["role"] == "client" else client_of[row["conn_id"]]
                )
                assert row["peer_pid"] in (None, right), row
            assert named["socket"] > len(rows) * 0.99, named
