# SPDX-License-Identifier: BSD-2-Clause
"""What ``cgnet drop`` doesn't show: what ordinary connections lose, and what isn't TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drops import dropping, last, of
from harness import wait_until
from router_chain import chain
from test_drop_stale import close_in_time_wait

from cgnet.kernel.btf import KERNEL_BTF, tracepoint_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Row
    from remote_python import RemotePython
    from two_containers import Place

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9
TCP_LINGER2 = 8
CONNECTIONS = 1000
BRIEF = ("location", "reason", "tcp_flags", "tcp_state", "payload")
TALK = """
for _ in range({count}):
    with socket.create_connection(({address!r}, {port})) as each:
        each.send(b'x' * 100)
        each.recv(100)
"""
SERVE = """
for _ in range({count}):
    taken, _ = server.accept()
    with taken:
        taken.send(taken.recv(100))
"""


# Both go on after the other has ended: the last segments without data are discarded.
TALK_ON = """
for _ in range({count}):
    with socket.create_connection(({address!r}, {port})) as each:
        each.shutdown(socket.SHUT_WR)
        while each.recv(100):
            pass
"""
SERVE_ON = """
for _ in range({count}):
    taken, _ = server.accept()
    with taken:
        assert not taken.recv(100)
        for _ in range(3):
            taken.send(b'x' * 100)
"""


WAYS = {"client closes": (TALK, SERVE), "half closed": (TALK_ON, SERVE_ON)}
# Those that drop something; late acknowledgements are no drops on kernels that tell no socket with one.
SOCKET_IS_TOLD = tracepoint_arguments("kfree_skb", KERNEL_BTF) > 3
DROPPING = {*WAYS} if SOCKET_IS_TOLD else {"client closes"}


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Place, Place]]:
    """A client and a server with a router between them; whose they are doesn't matter here."""
    with chain(1) as (client, _, server):
        yield client, server


def talk(remote: RemotePython, serving: RemotePython, address: str, count: int, way: str) -> None:
    """Make ordinary connections."""
    client, server = WAYS[way]
    port = serving.listen(address)
    serving.begin(server.format(count=count))
    remote.do(client.format(count=count, address=address, port=port))
    serving.end()


def sent_again(places: tuple[Place, ...]) -> int:
    """Return how many segments these namespaces have sent again."""
    count = 0
    for place in places:
        lines = place.run("cat", "/proc/net/snmp").splitlines()
        names, numbers = (line.split() for line in lines if line.startswith("Tcp:"))
        count += int(dict(zip(names, numbers, strict=True))["RetransSegs"])
    return count


@FAMILIES
@pytest.mark.parametrize("way", list(WAYS))
def test_ordinary_connections_lose_nothing(
    ends: tuple[Place, Place], family: int, hook: str, way: str
) -> None:
    """What a host that is too slow sends again isn't ordinary: it may find its connection gone."""
    client, server = ends
    before = sent_again(ends)
    with (
        dropping("--hook", hook, *of(client)) as ours,
        dropping("--hook", hook, *of(server)) as theirs,
        client.remote() as remote,
        server.remote() as serving,
    ):
        talk(remote, serving, server.address(family), CONNECTIONS, way)
        benign = sum(last(each.tracer)["benign"] for each in (ours, theirs))
        shown = [row for each in (ours, theirs) for row in each.tracer.rows()]
        answered = 2 * (sent_again(ends) - before)
    told = [[row[key] for key in BRIEF] for row in shown]
    assert len(shown) <= answered, told
    assert benign > 0 or way not in DROPPING


@FAMILIES
def test_data_after_the_close_is_shown(ends: tuple[Place, Place], family: int, hook: str) -> None:
    """On each kernel, whether it tells the socket and a reason or not; the close itself is silent."""
    client, server = ends
    with (
        dropping("--hook", hook, *of(server)) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        port = serving.listen(server.address(family))
        assert remote.connect(server.address(family), port, timeout=5) == "ok"
        serving.do("taken, _ = server.accept()")
        close_in_time_wait(remote, serving, family)
        remote.do("client.send(b'request')")
        row = drops.one(f"tcp_v{family}_rcv", dport=port)
        drops.tracer.stop()
    assert row == row | {"tcp_state": "TIME_WAIT", "payload": 7, "reason_class": "application"}
    assert len(drops.tracer.rows()) == 1


@pytest.mark.skipif(not SOCKET_IS_TOLD, reason="the kernel tells no socket with a drop")
@FAMILIES
def test_data_that_ends_an_orphan(ends: tuple[Place, Place], family: int, hook: str) -> None:
    """A socket that waits for its peer's end for longer than TIME_WAIT is gone with the data."""
    client, server = ends
    with (
        dropping("--hook", hook, *of(server)) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        port = serving.listen(server.address(family))
        assert remote.connect(server.address(family), port, timeout=5) == "ok"
        serving.do(f"taken, _ = server.accept(); taken.setsockopt(6, {TCP_LINGER2}, 120)")
        serving.do("taken.close()")
        assert remote.get("client.recv(9).decode()") == ""
        remote.do("client.send(b'request')")
        row = drops.one(f"tcp_v{family}_rcv", dport=port)
    assert row == row | {
        "owner_source": "inherited",
        "pid": serving.pid,
        "role": "server",
        "tcp_state": "CLOSE",
        "payload": 7,
    }


def test_benign_drops_are_shown_if_asked_for(ends: tuple[Place, Place]) -> None:
    client, server = ends
    with (
        dropping("--all", *of(server)) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):

        def benign() -> list[Row]:
            """Not every close has one: an acknowledgement has to come behind the client's FIN."""
            talk(remote, serving, server.address(4), 20, "client closes")
            return drops.of(reason_class="benign")

        wait_until("a benign one", benign)
        summary = last(drops.tracer)
    assert {row["reason_class"] for row in drops.tracer.rows()} == {"benign"}
    assert summary["benign"] == 0


@FAMILIES
def test_other_protocols_never_appear(ends: tuple[Place, Place], family: int, hook: str) -> None:
    """UDP, and ICMP that carries the headers of TCP."""
    client, server = ends
    kind = "AF_INET6" if family == 6 else "AF_INET"
    with dropping("--hook", hook, "--all", *of(server)) as drops, client.remote() as remote:
        remote.do(f"udp = socket.socket(socket.{kind}, socket.SOCK_DGRAM)")
        remote.do(f"udp.connect(({server.address(family)!r}, {PORT})); udp.send(b'x')")
        with pytest.raises(OSError, match="ECONNREFUSED"):
            remote.do("udp.settimeout(5); udp.recv(1)")
        remote.connect(server.address(family), PORT, timeout=5)
        drops.one(f"tcp_v{family}_rcv", dport=PORT)
        drops.tracer.stop()
    assert len(drops.tracer.rows()) == 1


REPORTS = "Icmp6OutMLDv2Reports"


def reports(place: Place) -> int:
    """Return how many listener reports of multicast a namespace has sent."""
    lines = (line.split() for line in place.run("cat", "/proc/net/snmp6").splitlines())
    return int(dict(lines)[REPORTS])


def test_icmp_behind_an_extension_header_never_appears(ends: tuple[Place, Place]) -> None:
    """Reports on multicast have hop-by-hop options, and who isn't interested drops them."""
    client, server = ends
    with dropping("--all", *of(server)) as drops, client.remote() as remote:
        before = reports(client)
        remote.do("udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)")
        remote.do("group = socket.inet_pton(socket.AF_INET6, 'ff02::1234')")
        remote.do("group += struct.pack('I', socket.if_nametoindex('e0'))")
        remote.do("udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)")
        wait_until("a report", lambda: reports(client) > before)
        remote.connect(server.address(6), PORT, timeout=5)
        drops.one("tcp_v6_rcv", dport=PORT)
        drops.tracer.stop()
    assert len(drops.tracer.rows()) == 1
