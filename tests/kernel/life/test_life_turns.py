# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet life --ttfb``: how long a server takes from a request to the first byte of its answer."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import tracing
from lives import the_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Row, Tracer

THINK_S = 0.1
PIECES = 20
LARGE = 10_000_000
TURNS = ("ttfb_us", "ttfb_min_us", "ttfb_max_us", "turns")


class Talk:
    """Both ends of a connection over loopback, in one process: each turn's bounds are known."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.bounds: list[tuple[float, float]] = []  # of each turn, in microseconds

    def request(self, *pieces: bytes, pause: float = 0.0) -> tuple[float, float]:
        """Send a request; return when its last piece was sent at the earliest, and had come."""
        for piece in pieces:
            time.sleep(pause)
            sent = time.monotonic()
            self.client.sendall(piece)
        wanted = sum(map(len, pieces))
        while wanted:
            wanted -= len(self.server.recv(wanted))
        return sent, time.monotonic()

    def turn(self, *pieces: bytes, think: float = 0.0, pause: float = 0.0) -> None:
        sent, came = self.request(*pieces or (b"request",), pause=pause)
        time.sleep(think)
        before = time.monotonic()
        self.server.sendall(b"answer")
        assert self.client.recv(6) == b"answer"
        self.bounds.append(((before - came) * 1e6, (time.monotonic() - sent) * 1e6))

    def check(self, row: Row) -> None:
        """Compare a row with the turns."""
        least, most = zip(*self.bounds, strict=True)
        assert row["turns"] == len(self.bounds), row
        number = len(self.bounds)
        assert sum(least) / number <= row["ttfb_us"] + 1 <= sum(most) / number + 1, row
        assert min(least) <= row["ttfb_min_us"] + 1 <= min(most) + 1, row
        assert max(least) <= row["ttfb_max_us"] + 1 <= max(most) + 1, row


@contextmanager
def talk(hook: str, *options: str) -> Iterator[tuple[Talk, Tracer, int]]:
    """Trace a server, and connect to it; also yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listens:
        port = listens.getsockname()[1]
        chosen = ("--hook", hook, "--saddr", "127.0.0.1", "--sport", str(port))
        with tracing(*chosen, *options or ("--ttfb",), command="life") as tracer:
            client = socket.create_connection(("127.0.0.1", port))
            server, _ = listens.accept()
            with client, server:
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield Talk(client, server), tracer, port


def row_of(tracer: Tracer, made: Talk, port: int, first: str = "client") -> Row:
    """Close both ends, and return the server's row."""
    ends = (made.server, made.client) if first == "server" else (made.client, made.server)
    for each in ends:
        each.close()
    return the_end(tracer, port)


def test_a_server_that_thinks(hook: str) -> None:
    with talk(hook) as (made, tracer, port):
        for number in range(5):
            made.turn(think=THINK_S * (1 + number))
        row = row_of(tracer, made, port)
    made.check(row)
    assert THINK_S * 1e6 <= row["ttfb_min_us"] < row["ttfb_us"] < row["ttfb_max_us"]


def test_a_server_that_answers_at_once(hook: str) -> None:
    with talk(hook) as (made, tracer, port):
        for _ in range(100):
            made.turn()
        row = row_of(tracer, made, port)
    made.check(row)


def test_a_request_in_pieces(hook: str) -> None:
    """Its last piece counts."""
    with talk(hook) as (made, tracer, port):
        made.turn(*[b"piece"] * PIECES, think=THINK_S, pause=0.02)
        row = row_of(tracer, made, port)
    made.check(row)


def test_pipelined_requests(hook: str) -> None:
    """The first byte of an answer ends the turn of all that was asked before."""
    with talk(hook) as (made, tracer, port):
        made.turn(b"one", b"two", b"three", think=THINK_S)
        made.server.sendall(b"more")
        assert made.client.recv(4) == b"more"
        made.turn()
        row = row_of(tracer, made, port)
    made.check(row)


def test_a_large_answer(hook: str) -> None:
    """Its first byte counts, not the last."""
    with talk(hook) as (made, tracer, port):
        sent, came = made.request(b"request")
        time.sleep(THINK_S)
        before = time.monotonic()
        sends = threading.Thread(target=made.server.sendall, args=(bytes(LARGE),))
        sends.start()
        left = LARGE - len(made.client.recv(1))
        made.bounds.append(((before - came) * 1e6, (time.monotonic() - sent) * 1e6))
        time.sleep(3 * THINK_S)
        assert sends.is_alive()
        while left:
            left -= len(made.client.recv(1 << 20))
        sends.join()
        row = row_of(tracer, made, port)
    made.check(row)


def test_a_server_that_speaks_first_has_none(hook: str) -> None:
    with talk(hook) as (made, tracer, port):
        made.server.sendall(b"hello!")
        assert made.client.recv(6)
        made.turn(think=THINK_S)
        row = row_of(tracer, made, port)
    assert {name: row[name] for name in TURNS} == dict.fromkeys(TURNS) | {"turns": 0}


def test_a_server_that_does_not_answer_has_none(hook: str) -> None:
    with talk(hook) as (made, tracer, port):
        made.request(b"request")
        row = row_of(tracer, made, port, first="server")
    assert {name: row[name] for name in TURNS} == dict.fromkeys(TURNS) | {"turns": 0}


def test_a_server_that_closes_first(hook: str) -> None:
    with talk(hook) as (made, tracer, port):
        made.turn(think=THINK_S)
        row = row_of(tracer, made, port, first="server")
    made.check(row)


def test_a_server_that_closes_at_once(hook: str) -> None:
    """Its end comes before the answer is acknowledged."""
    with talk(hook) as (made, tracer, port):
        sent, came = made.request(b"request")
        time.sleep(THINK_S)
        before = time.monotonic()
        made.server.sendall(b"answer")
        made.server.close()
        made.bounds.append(((before - came) * 1e6, (time.monotonic() - sent) * 1e6))
        row = row_of(tracer, made, port)
    made.check(row)


def test_a_client_has_none(hook: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listens:
        port = listens.getsockname()[1]
        chosen = ("--hook", hook, "--daddr", "127.0.0.1", "--dport", str(port), "--ttfb")
        with tracing(*chosen, "--role", "client", command="life") as tracer:
            client = socket.create_connection(("127.0.0.1", port))
            server, _ = listens.accept()
            ours = client.getsockname()[1]
            made = Talk(client, server)
            made.turn()
            for each in (client, server):
                each.close()
            row = the_end(tracer, ours)
    assert {name: row[name] for name in TURNS} == dict.fromkeys(TURNS)


def test_nobody_asked(hook: str) -> None:
    with talk(hook, "--min-bytes", "1") as (made, tracer, port):
        made.turn()
        row = row_of(tracer, made, port)
    assert {name: row[name] for name in TURNS} == dict.fromkeys(TURNS)


def test_a_field_asks_for_it(hook: str) -> None:
    with talk(hook, "--fields", "type,sport,open,turns,ttfb_max_us") as (made, tracer, port):
        made.turn(think=THINK_S)
        row = row_of(tracer, made, port)
    assert row["turns"] == 1
    assert row["ttfb_max_us"] >= THINK_S * 1e6
