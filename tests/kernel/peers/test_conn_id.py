# SPDX-License-Identifier: BSD-2-Clause
"""``conn_id`` is equal at both ends, whatever is between them, and nobody shows the numbers."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import duckdb
import pytest
from background import background
from delay_line import LEFT, RIGHT, delay_line
from harness import ROOT, in_netns, listener, run, tracing, wait_until
from lives import within
from nat_lab import nat_lab, talk

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row, Tracer

MANY = 1000
KEY = "00112233445566778899aabbccddeeff"


def ids(tracer: Tracer, command: str, role: str, count: int) -> dict[int, str]:
    """Wait for the rows of a role; return their ids by the client's port."""
    port = "sport" if role == "client" else "dport"

    def rows() -> list[Row]:
        return [row for row in tracer.rows(command) if row["role"] == role]

    wait_until(lambda: f"{count} rows of {role}: {tracer}", lambda: len(rows()) >= count)
    return {row[port]: row["conn_id"] for row in rows()}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("command", ["connect", "life"])
@pytest.mark.parametrize(
    ("dnat", "snat"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_both_ends_have_it_through_translation(
    hook: str, family: int, command: str, dnat: bool, snat: bool
) -> None:
    """Each side has a cgnet of its own, as on two hosts."""
    with nat_lab(family, dnat=dnat, snat=snat) as lab, ExitStack() as stack:
        all_ = ("--all",) if command == "connect" else ()
        near, far = (
            stack.enter_context(
                tracing("--hook", hook, *all_, *within(place.netns), command=command)
            )
            for place in (lab.client, lab.server)
        )
        talk(lab.client, lab.host, lab.port, 20)
        clients, servers = ids(near, command, "client", 20), ids(far, command, "server", 20)
        assert None not in clients.values()
        assert len({*clients.values()}) == 20
        assert sorted(clients.values()) == sorted(servers.values())


def test_a_thousand_of_a_thousand_under_one_key(tmp_path: Path) -> None:
    """And an attempt, and the same connection's life, have the same."""
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n", encoding="utf-8")
    key.chmod(0o600)
    with nat_lab(4, dnat=True, snat=True) as lab, ExitStack() as stack:
        tracers = [
            stack.enter_context(
                tracing(
                    "--conn-key", str(key), *within(place.netns), "--role", role, command=command
                )
            )
            for command in ("connect", "life")
            for place, role in ((lab.client, "client"), (lab.server, "server"))
        ]
        public = stack.enter_context(tracing(*within(lab.client.netns)))
        talk(lab.client, lab.host, lab.port, MANY)
        found = [
            Counter(ids(tracer, tracer.command, role, MANY).values())
            for tracer, role in zip(tracers, ("client", "server") * 2, strict=True)
        ]
        assert len(found[0]) == MANY
        assert found[0] == found[1] == found[2] == found[3]
        other = Counter(ids(public, "connect", "client", MANY).values())
        assert not other & found[0]


def test_the_rows_of_two_hosts_join_in_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the recipe of docs/peers.md, through translation."""
    recipe = (ROOT / "docs/peers.md").read_text().partition("```sql")[2].partition("```")[0]
    with nat_lab(4, dnat=True, snat=True) as lab, ExitStack() as stack:
        near, far = (
            stack.enter_context(tracing("--all", *within(place.netns)))
            for place in (lab.client, lab.server)
        )
        ports = talk(lab.client, lab.host, lab.port, 20)
        for tracer, name in ((near, "web"), (far, "db")):
            wait_until(lambda t=tracer: f"{t}", lambda t=tracer: len(t.rows()) >= 20)
            tracer.stop()
            (tmp_path / f"{name}.jsonl").write_text("".join(tracer.lines))
        monkeypatch.chdir(tmp_path)
        rows = duckdb.sql(recipe).fetchall()
        assert len(rows) == len(ports) == 20
        routers = lab.router.addresses_of("e0")
        assert {(row[1], row[3] in routers) for row in rows} == {(lab.host, True)}


def test_data_in_the_syn(hook: str, netns: str) -> None:
    in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    with listener(netns=netns, fast_open=True) as port, ExitStack() as stack:
        connect = stack.enter_context(tracing("--hook", hook, "--all", *within(netns)))
        life = stack.enter_context(tracing("--hook", hook, *within(netns), command="life"))
        run("fast_open_deferred", port, "0", netns=netns)
        found = [
            ids(tracer, tracer.command, role, 3)
            for tracer in (connect, life)
            for role in ("client", "server")
        ]
        assert None not in found[0].values()
        assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("family", [4, 6])
def test_syn_cookies(hook: str, netns: str, family: int) -> None:
    in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_syncookies=2")
    address = "127.0.0.1" if family == 4 else "::1"
    with (
        listener(netns=netns, address=address) as port,
        tracing("--hook", hook, "--all", *within(netns)) as tracer,
    ):
        for _ in range(8):  # in turn
            run("connect", address, port, netns=netns)
        clients, servers = (ids(tracer, "connect", role, 8) for role in ("client", "server"))
        assert None not in clients.values()
        assert clients.keys() == servers.keys()
        # docs/peers.md tells of cookies whose last acknowledgement is lost: a busy host may lose one.
        assert sum(clients[port] != servers[port] for port in clients) <= 1


@pytest.mark.parametrize("family", [4, 6])
def test_a_simultaneous_open_has_two_clients(hook: str, family: int) -> None:
    with delay_line(0.3) as line, ExitStack() as stack:
        connect, life = (
            stack.enter_context(tracing("--hook", hook, command=command))
            for command in ("connect", "life")
        )
        ends = []
        for netns, own, other in (
            (line.left, (LEFT[family], 7000), (RIGHT[family], 7001)),
            (line.right, (RIGHT[family], 7001), (LEFT[family], 7000)),
        ):
            code = (
                f"import socket; s = socket.socket(socket.AF_INET{'6' if family == 6 else ''}); "
                f"s.bind({own!r}); input(); s.connect({other!r}); s.send(b'x'); s.recv(1); input()"
            )
            ends.append(stack.enter_context(background(netns, code)))
        for end in ends:
            end.say()
        met = {7000: 7001, 7001: 7000}
        wait_until(lambda: f"{connect}", lambda: len(mine(connect, met)) == 2)
        for end in ends:
            end.say()
        wait_until(lambda: f"{life}", lambda: len(mine(life, met)) == 2)
        rows = mine(connect, met) + mine(life, met)
        assert {row["role"] for row in rows} == {"client"}
        assert len({row["conn_id"] for row in rows}) == 1
        assert rows[0]["conn_id"]


def mine(tracer: Tracer, met: dict[int, int]) -> list[Row]:
    return [row for row in tracer.rows() if met.get(row["sport"]) == row["dport"]]


def test_what_has_none(hook: str, netns: str) -> None:
    """An attempt that fails, a socket that is restored, one that was open before."""
    with listener(netns=netns) as port, ExitStack() as stack:
        before = stack.enter_context(background(netns, TALKS.format(port=port)))
        before.wait("connected")
        connect = stack.enter_context(tracing("--hook", hook, "--all", *within(netns)))
        life = stack.enter_context(tracing("--hook", hook, *within(netns), command="life"))
        before.say()
        run("connect", "127.0.0.1", 1, netns=netns)
        with background(netns, RESTORES) as restored:
            restored.wait("restored")
            restored.say()
        wait_until(lambda: f"{connect}", lambda: len(connect.rows()) >= 2)
        wait_until(lambda: f"{life}", lambda: len(life.rows()) >= 3)
        failed, of_restored = connect.rows()
        assert (failed["result"], failed["conn_id"]) == ("ECONNREFUSED", None)
        assert (of_restored["result"], of_restored["conn_id"]) == ("ok", None)
        assert {row["conn_id"] for row in life.rows()} == {None}


def test_the_numbers_are_shown_nowhere(hook: str, netns: str) -> None:
    """A restorer may read a socket's numbers: no output has them, also with -v."""
    with listener(netns=netns) as port, ExitStack() as stack:
        tracers = [
            stack.enter_context(
                tracing("--hook", hook, "-v", *within(netns), output=output, command=command)
            )
            for command in ("connect", "life")
            for output in ("json", "csv", "wide")
        ]
        with background(netns, TELLS_NUMBERS.format(port=port)) as told:
            numbers = json.loads(told.wait("["))
            told.say()
        for tracer in tracers:
            wait_until(lambda t=tracer: f"{t}", lambda t=tracer: str(port) in "".join(t.lines))
            tracer.stop()
            text = "".join((*tracer.lines, *tracer.said))
            for number in numbers:
                for shown in (str(number), f"{number:x}", f"{number:08x}"):
                    assert shown not in text


TALKS = """
import socket
sock = socket.create_connection(("127.0.0.1", {port}))
sock.sendall(b"x")
sock.recv(1)
print("connected", flush=True)
input()
sock.close()
"""
REPAIR, QUEUE, SEQ = 19, 20, 21  # linux/tcp.h: TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ
RESTORES = f"""
import socket
sock = socket.socket()
sock.setsockopt(6, {REPAIR}, 1)
for queue, number in ((2, 1000), (1, 2000)):
    sock.setsockopt(6, {QUEUE}, queue)
    sock.setsockopt(6, {SEQ}, number)
sock.bind(("127.0.0.1", 7010))
sock.connect(("127.0.0.1", 7011))
print("restored", flush=True)
input()
sock.close()
"""
TELLS_NUMBERS = f"""
import socket
sock = socket.create_connection(("127.0.0.1", {{port}}))
sock.setsockopt(6, {REPAIR}, 1)
found = []
for queue in (2, 1):
    sock.setsockopt(6, {QUEUE}, queue)
    found.append(sock.getsockopt(6, {SEQ}) & 0xffffffff)
sock.setsockopt(6, {REPAIR}, 0)
print(found, flush=True)
input()
sock.close()
"""
