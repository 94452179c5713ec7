# SPDX-License-Identifier: BSD-2-Clause
"""Whose a socket is that was passed on, that several hold, or that no process holds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from compare import inner
from harness import HIERARCHY, PATIENCE_S, V2, ip, new_cgroup, wait_until
from remote_python import RemotePython
from servers import IPPROTO_MPTCP
from socket_lists import listed

if TYPE_CHECKING:
    from harness import Row

SUPPORT = f"sys.path.insert(0, {str(Path(__file__).parents[1] / 'support')!r})"
OPEN = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
served = server.accept()[0]
"""
# Sources of an owner that isn't a process's file.
BY_KERNEL = {"sk_cgrp", "memcg"}


class Pair:
    """Two processes, in two cgroups, and in one namespace; a socket between them."""

    def __init__(self, stack: ExitStack, netns: str, parent: Path, path: Path) -> None:
        self.netns, self.parent = netns, parent
        self.cgroups = [stack.enter_context(new_cgroup(parent)) for _ in range(2)]
        self.giver, self.taker = (
            stack.enter_context(RemotePython(f"/run/netns/{netns}", cgroups=(cgroup,)))
            for cgroup in self.cgroups
        )
        self.taker.do(
            f"unix = socket.socket(socket.AF_UNIX); unix.bind({str(path)!r}); unix.listen()"
        )
        self.giver.do(f"unix = socket.socket(socket.AF_UNIX); unix.connect({str(path)!r})")
        self.taker.do(f"unix.settimeout({PATIENCE_S}); unix = unix.accept()[0]")
        self.giver.do(OPEN)
        self.port = self.giver.get("client.getsockname()[1]")

    def row(self, *options: str) -> Row:
        """Return the client's row."""
        rows, _ = listed("--sport", str(self.port), "--netns", f"/run/netns/{self.netns}", *options)
        assert len(rows) == 1, rows
        return rows[0]

    def holders(self, row: Row) -> list[tuple[int, str]]:
        return [(each["pid"], each["cgroup"]) for each in row["holders"]]

    def places(self) -> list[tuple[int, str]]:
        """Return PID and cgroup of both."""
        processes = zip((self.giver, self.taker), self.cgroups, strict=True)
        return [(each.pid, inner(cgroup, self.parent)) for each, cgroup in processes]


@pytest.fixture
def pair(netns: str, tmp_path: Path) -> Pair:
    with ExitStack() as stack:
        yield Pair(stack, netns, HIERARCHY, tmp_path / "socket")


def test_a_socket_that_is_passed_on_has_two_holders_then_the_other_one(pair: Pair) -> None:
    giver, taker = pair.places()
    row = pair.row()
    assert ((row["pid"], row["cgroup"]), row["holders"]) == (giver, None)
    pair.giver.do("socket.send_fds(unix, [b'x'], [client.fileno()])")
    pair.taker.do("client = socket.recv_fds(unix, 1, 1)[1][0]")
    row = pair.row()
    assert (row["pid"], row["cgroup"]) in (giver, taker)
    assert pair.holders(row) == sorted([giver, taker])
    for place, cgroup in zip((giver, taker), pair.cgroups, strict=True):  # each is told
        row = pair.row("--cgroup", str(cgroup))
        assert (row["pid"], row["cgroup"]) == place
        assert pair.holders(row) == sorted([giver, taker])
    pair.giver.do("client.close()")
    row = pair.row()
    assert ((row["pid"], row["cgroup"]), row["holders"]) == (taker, None)
    assert row["owner_source"] == "seeded"


@pytest.mark.parametrize("way", ["message", "ring"])
@pytest.mark.parametrize("parent", sorted({HIERARCHY, V2}))
def test_what_no_process_holds_belongs_to_the_cgroup_that_opened_it(
    netns: str, tmp_path: Path, parent: Path, way: str
) -> None:
    """On its way in a message, or kept by io_uring alone: the kernel notes the cgroup."""
    with ExitStack() as stack:
        pair = Pair(stack, netns, parent, tmp_path / "socket")
        if way == "message":
            pair.giver.do("socket.send_fds(unix, [b'x'], [client.fileno()])")
        else:
            pair.giver.do(f"{SUPPORT}; import uring; ring = uring.keep_by_ring(client.fileno())")
        pair.giver.do("client.close()")
        hierarchy = ("--hierarchy", "v2") if parent == V2 else ()
        row = pair.row(*hierarchy)
        assert (row["state"], row["pid"], row["holders"]) == ("ESTABLISHED", None, None)
        if parent != V2 and row["owner_source"] == "unknown":  # the kernel may note it for v2 alone
            assert row["cgroup"] is None
            return
        assert row["owner_source"] in BY_KERNEL
        assert row["cgroup"] == inner(pair.cgroups[0], parent)


MPTCP = f"""
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {IPPROTO_MPTCP})
server.bind(("127.0.0.1", 0)); server.listen()
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {IPPROTO_MPTCP})
client.connect(server.getsockname())
served = server.accept()[0]
for end, other in ((client, served), (served, client)):
    end.send(b"x"); other.recv(1)
"""


def test_subflows_belong_to_their_connection(netns: str) -> None:
    """Also one that the kernel opens later; a listener that is the kernel's is nobody's."""
    with new_cgroup(HIERARCHY) as cgroup, RemotePython(f"/run/netns/{netns}", (cgroup,)) as process:
        ip("-n", netns, "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2")
        process.do(MPTCP)
        place = ("--netns", f"/run/netns/{netns}")

        def subflows() -> list[Row]:
            return [row for row in listed(*place)[0] if row["state"] == "ESTABLISHED"]

        assert len(subflows()) == 2
        ip("-n", netns, "addr", "add", "127.0.0.9/8", "dev", "lo")
        ip("-n", netns, "mptcp", "endpoint", "add", "127.0.0.9", "subflow")
        wait_until("another subflow", lambda: len(subflows()) == 4)
        rows = subflows()
        assert {(row["pid"], row["cgroup"]) for row in rows} == {
            (process.pid, inner(cgroup, HIERARCHY))
        }
        assert {row["owner_source"] for row in rows} <= {"seeded", "inherited"}
        assert len({row["inode"] for row in rows}) == 2  # of two connections' files
        ip("-n", netns, "mptcp", "endpoint", "add", "127.0.0.8", "port", "7654", "signal")
        try:
            (row,) = (row for row in listed("--listeners", *place)[0] if row["sport"] == 7654)
        finally:  # the kernel's listener keeps its namespace
            ip("-n", netns, "mptcp", "endpoint", "flush")
        assert (row["pid"], row["holders"]) == (None, None)
