# SPDX-License-Identifier: BSD-2-Clause
"""Sockets that find no room in the ledger of raw_tp: each is one loss, however many events it has."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from harness import wait_until

from cgnet.commands.life import COMMAND
from cgnet.filters.selection import Filters
from cgnet.loader import Object
from cgnet.records._layouts import LostWhere
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    import pytest

CONNECTIONS = 20
RING = 1 << 20


def talk(listener: socket.socket) -> None:
    """One connection, with events of each kind at both of its ends."""
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            client.sendall(b"ping")
            assert server.recv(4) == b"ping"
            server.sendall(b"pong")
            assert client.recv(4) == b"pong"
        assert client.recv(1) == b""


def lost(obj: Object) -> int:
    where = int(LostWhere.LOST_LEDGER).to_bytes(4, sys.byteorder)
    return int.from_bytes(obj.map("lost").lookup(where, 8), sys.byteorder)


def test_a_socket_without_room_is_one_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Object.load

    def load_small(obj: Object) -> None:
        if obj.has_map("ledger_hash"):
            obj.resize("ledger_hash", 1)
        load(obj)

    monkeypatch.setattr(Object, "load", load_small)
    launch = Launch(COMMAND, Filters(), RING)
    obj = launch.start(None, "raw_tp")
    counted: list[int] = []

    def counts_each_once() -> bool:
        """What others on the host do meanwhile is lost as well."""
        before = lost(obj)
        for _ in range(CONNECTIONS):
            talk(listener)
        counted.append(lost(obj) - before)
        return 2 * CONNECTIONS - 4 <= counted[-1] <= 2 * CONNECTIONS

    with obj, socket.create_server(("127.0.0.1", 0)) as listener:
        wait_until(lambda: f"{2 * CONNECTIONS}: {counted}", counts_each_once)
