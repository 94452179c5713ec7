# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet drop --explain``: what it says, and evidence from where packets were dropped."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from drops import Drops, dropping
from harness import CGNET, Row, tracing, unique, wait_until
from remote_python import RemotePython, RemotePythonError, in_own_cgroups
from segments import ACK, SYN, send, tcp_packet
from test_drop_path import fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from two_containers import Place, TwoContainers

PORT = 9


def explained(drops: Drops, place: Place, **wanted: Any) -> Row:
    """Wait until drops came, end the tracer, and return the advice."""
    wait_until(
        lambda: f"{wanted} among {drops.tracer}", lambda: drops.of(netns=place.inode, **wanted)
    )
    drops.tracer.stop()
    found = drops.tracer.rows("advice")
    (advice,) = [row for row in found if wanted.items() <= row.items()]
    assert advice["netns"] == place.inode
    assert advice["count"] == len(drops.of(**wanted))
    return advice


def explaining(place: Place, *more: str) -> Any:
    return dropping("--explain", "--netns", str(place.inode), *more)


@pytest.mark.parametrize(
    ("address", "said"),
    [("", "nobody listens at port"), ("127.0.0.1", "listens on 127.0.0.1 alone")],
)
def test_closed_port(containers: TwoContainers, address: str, said: str) -> None:
    client, server = containers.client, containers.server
    with explaining(server) as drops, client.remote() as remote, server.remote() as serving:
        port = serving.listen(address) if address else PORT
        assert remote.connect(server.address(4), port, timeout=5) == "ECONNREFUSED"
        advice = explained(drops, server, reason="NO_SOCKET")
    assert said in advice["text"]
    assert advice["container"] == server.container
    assert advice["evidence"] == {"listeners": [f"{address}:{port}"] if address else []}


def test_full_accept_queue(containers: TwoContainers) -> None:
    client, server = containers.client, containers.server
    with (
        explaining(server, "--syn-drops") as drops,
        client.remote() as remote,
        server.remote() as serving,
        server.set("net.core.somaxconn", 77),
    ):
        port = serving.listen(server.address(4), backlog=0)
        assert remote.connect(server.address(4), port, "first", timeout=5) == "ok"
        remote.connect(server.address(4), port, "second")
        advice = explained(drops, server, reason="TCP_LISTEN_OVERFLOW")
    evidence = advice["evidence"]
    assert (evidence["accept_queue"], evidence["backlog"]) == (1, 0)
    assert evidence["net.core.somaxconn"] == 77
    assert evidence["TcpExtListenOverflows"] == advice["count"]


def cpu_group(place: Place) -> Path:
    """Return the cgroup that limits a container's CPU."""
    groups = in_own_cgroups(place.pid)
    found = [group for group in groups if (group / "cpu.cfs_quota_us").exists()]
    if not found:
        pytest.skip("no v1 hierarchy limits the CPU here")
    return found[0]


def throttled(group: Path) -> int:
    lines = (group / "cpu.stat").read_text().splitlines()
    return int(dict(line.split() for line in lines)["nr_throttled"])


def test_a_server_that_its_cpu_limit_holds_up(containers: TwoContainers) -> None:
    client, server = containers.client, containers.server
    group = cpu_group(server)
    with (
        explaining(server, "--syn-drops") as drops,
        client.remote() as remote,
        server.remote() as serving,
        server.remote() as busy,
    ):
        port = serving.listen(server.address(4), backlog=0)
        (group / "cpu.cfs_quota_us").write_text("5000")
        try:
            busy.begin("while True: pass")
            wait_until("it is held up", lambda: throttled(group))
        finally:
            (group / "cpu.cfs_quota_us").write_text("-1")
        assert remote.connect(server.address(4), port, "first", timeout=5) == "ok"
        remote.connect(server.address(4), port, "second")
        advice = explained(drops, server, reason="TCP_LISTEN_OVERFLOW")
    assert advice["evidence"]["nr_throttled"] > 0
    assert "its CPU limit held it up" in advice["text"]


def test_reverse_path(containers: TwoContainers) -> None:
    client, server, router = containers.client, containers.server, containers.router
    alien = server.address(4).rpartition(".")[0] + ".99"
    with (
        explaining(router) as drops,
        client.remote() as remote,
        router.set("net.ipv4.conf.to_client.rp_filter", 1),
    ):
        packet = tcp_packet((alien, 4000), (server.address(4), PORT))
        send(remote, containers, packet)
        advice = explained(drops, router, reason="IP_RPFILTER")
    assert advice["evidence"] == {
        "net.ipv4.conf.all.rp_filter": 0,
        "net.ipv4.conf.to_client.rp_filter": 1,
    }
    assert "to_client" in advice["text"]


def test_shaper(containers: TwoContainers) -> None:
    client = containers.client
    with (
        explaining(client) as drops,
        client.remote() as remote,
        containers.server.remote() as serving,
        client.shaper(),
    ):
        fill(containers, 4, remote, serving)
        wait_until("a drop", lambda: drops.of(dev="c0"))
        advice = explained(drops, client, reason=drops.of(dev="c0")[0]["reason"])
    (qdisc,) = [each for each in advice["evidence"]["qdiscs"] if each["kind"] == "tbf"]
    assert qdisc["drops"] >= 1


def test_checksum(containers: TwoContainers) -> None:
    client, server = containers.client, containers.server
    with explaining(server) as drops, client.remote() as remote:
        source, target = (client.address(4), 4000), (server.address(4), PORT)
        packet = tcp_packet(source, target, tcp_error=1)
        send(remote, containers, packet, 3)
        advice = explained(drops, server, reason="TCP_CSUM")
    grown = advice["evidence"]["TcpInCsumErrors"]
    assert grown >= advice["count"]


LIMIT = "memory.kmem.tcp.limit_in_bytes"


def test_the_containers_own_limit_of_tcp_memory(containers: TwoContainers) -> None:
    client, server = containers.client, containers.server
    found = [group for group in in_own_cgroups(server.pid) if (group / LIMIT).exists()]
    if not found:
        pytest.skip("no v1 hierarchy limits TCP's memory here")
    before = (found[0] / LIMIT).read_text()
    with (
        explaining(server) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        (found[0] / LIMIT).write_text("300000")
        try:
            port = serving.listen(server.address(4))
            for name in ("one", "two", "three", "four"):
                assert remote.connect(server.address(4), port, name, timeout=5) == "ok"
                serving.do(f"{name}, _ = server.accept()")
                remote.do(f"{name}.settimeout(0)")
            wait_until("a drop", lambda: at_limit(remote, drops))
            advice = explained(drops, server, reason="PROTO_MEM")
        finally:
            (found[0] / LIMIT).write_text(before)
    assert f"the TCP memory of cgroup {found[0]} was at its own limit" in advice["text"]
    assert advice["evidence"]["memory.kmem.tcp.limit_in_bytes"] <= 300000


def at_limit(remote: RemotePython, drops: Drops) -> list[Row]:
    """Send what nobody reads; return the drops."""
    for name in ("one", "two", "three", "four"):
        with suppress(RemotePythonError):
            remote.do(f"{name}.send(bytes(1000000))")
    return drops.of(reason="PROTO_MEM")


def test_firewall(containers: TwoContainers) -> None:
    client, server = containers.client, containers.server
    with (
        explaining(server) as drops,
        server.firewall("input", f"tcp dport {PORT} drop"),
        client.remote() as remote,
    ):
        remote.connect(server.address(4), PORT)
        advice = explained(drops, server, reason="NETFILTER_DROP")
        said = f"a firewall rule of the input hook in network namespace {server.netns}: "
        assert advice["text"].startswith(said)
        assert f"ip netns exec {server.netns} nft list ruleset" in advice["text"]
    assert advice["evidence"]["hook"] == "input"


def test_a_rule_that_is_gone(containers: TwoContainers) -> None:
    """No rule is said to be there when none is."""
    server = containers.server
    with explaining(server) as drops, containers.client.remote() as remote:
        with server.firewall("input", f"tcp dport {PORT} drop"):
            remote.connect(server.address(4), PORT)
            wait_until("a drop", lambda: drops.of(reason="NETFILTER_DROP"))
        advice = explained(drops, server, reason="NETFILTER_DROP")
    assert advice["text"].startswith(f"no rule in network namespace {server.netns} drops")


def test_no_port_is_left_for_nat(containers: TwoContainers) -> None:
    """Two connections to one server have all ports that may be translated to."""
    client, server, router = containers.client, containers.server, containers.router
    masquerade = 'oifname "to_server" ip protocol tcp masquerade to :40000-40001'
    with (
        explaining(router) as drops,
        nat(router, masquerade),
        client.remote() as remote,
        server.remote() as serving,
    ):
        port = serving.listen(server.address(4))
        for name in ("one", "two"):
            assert remote.connect(server.address(4), port, name, timeout=5) == "ok"
        remote.connect(server.address(4), port, "three")
        advice = explained(drops, router, reason="NETFILTER_DROP")
    assert "no source port was left for NAT" in advice["text"]
    assert "rule" not in advice["text"]
    assert advice["evidence"]["conntrack_insert_failed"] >= advice["count"]
    assert advice["evidence"]["hook"] == "postrouting"


@contextmanager
def nat(place: Place, rule: str) -> Iterator[None]:
    table = unique("t").replace("-", "_")
    text = (
        f"add table ip {table}; add chain ip {table} c {{ type nat hook postrouting priority 100; }}; "
        f"add rule ip {table} c {rule}"
    )
    place.run("nft", text)
    try:
        yield
    finally:
        place.run("nft", f"delete table ip {table}")


def test_advice_to_people_comes_after_the_rows(containers: TwoContainers) -> None:
    server = containers.server
    arguments = ("--explain", "--netns", str(server.inode))
    with (
        tracing(*arguments, command="drop", output="table") as tracer,
        containers.client.remote() as remote,
    ):
        remote.connect(server.address(4), PORT, timeout=5)
        wait_until("a row", lambda: len(tracer.lines) > 1)
        tracer.stop()
    (said,) = [line for line in tracer.said if "nobody listens" in line]
    assert said.startswith(f"cgnet: 1 NO_SOCKET, {server.container}: ")


@pytest.mark.parametrize(
    ("more", "said", "evidence"),
    [
        (",dport", "nobody listens at port 9 in that network namespace", {"listeners": []}),
        ("", "nobody listens at the ports that they went to, or", {}),
    ],
)
def test_advice_on_counts(containers: TwoContainers, more: str, said: str, evidence: Row) -> None:
    by = ("--count", "--by", f"container,reason,netns{more}")
    with explaining(containers.server, *by) as drops, containers.client.remote() as remote:
        for _ in range(3):
            remote.connect(containers.server.address(4), PORT, timeout=5)
        drops.tracer.stop()
    (advice,) = drops.tracer.rows("advice")
    assert (advice["count"], advice["container"]) == (3, containers.server.container)
    assert advice["text"].startswith(said)
    assert advice["evidence"] == evidence


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--explain", "--count"), "--by with reason and netns"),
        (("--stacks", "folded", "--by", "reason"), "--by without stack"),
        (("--stacks", "folded", "-o", "json"), "has an output of its own"),
        (("--reason", "NONSENSE"), "no such reason"),
        (("--state", "NONSENSE"), "no such one"),
        (("--reason-class", "NONSENSE"), "no such one"),
        (("--dev", "x" * 16), "no device's name"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run([CGNET, "drop", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_answer_from_another_address_than_was_called(containers: TwoContainers) -> None:
    """As when NAT translates on the way there and not on the way back."""
    client, server = containers.client, containers.server
    called = "198.18.0.9"
    with (
        explaining(client) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        remote.do("client = socket.socket(); client.settimeout(0)")
        with suppress(RemotePythonError):
            remote.do(f"client.connect(({called!r}, 80))")
        port = remote.get("client.getsockname()[1]")
        answer = tcp_packet(
            (server.address(4), 8080), (client.address(4), port), flags=SYN | ACK, ack=1
        )
        serving.do("raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)")
        serving.do(f"raw.sendto(bytes.fromhex({answer[20:].hex()!r}), ({client.address(4)!r}, 0))")
        wait_until("a drop", lambda: drops.of(reason="NO_SOCKET"))
        advice = explained(drops, client, reason="NO_SOCKET")
    assert (
        f"whose socket here talks to {called} port 80: an address was translated" in advice["text"]
    )
    assert advice["evidence"] == {"sockets": [f"{called}:80"]}


def test_lines_for_different_namespaces_differ(containers: TwoContainers) -> None:
    """The same reason and owner in two places."""
    router, server = containers.router, containers.server
    hosts = ("--netns", str(router.inode), "--netns", str(server.inode))
    with (
        tracing("--explain", *hosts, command="drop", output="table") as tracer,
        server.remote() as remote,
    ):
        remote.connect(server.address(4), PORT, timeout=5)
        remote.connect(router.addresses_of("to_server")[0], PORT, timeout=5)
        wait_until("both rows", lambda: len(tracer.lines) > 2)
        tracer.stop()
    said = [line for line in tracer.said if "NO_SOCKET" in line]
    places = [f"{server.container} in network namespace {each.netns}:" for each in (router, server)]
    assert sorted(any(place in line for line in said) for place in places) == [True, True]
