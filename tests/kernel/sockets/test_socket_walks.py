# SPDX-License-Identifier: BSD-2-Clause
"""The ways of ``cgnet sockets`` on kernels that lack something: all list the same sockets."""

from __future__ import annotations

import os
import socket

import pytest

from cgnet.commands.sockets import load
from cgnet.commands.sockets.walk import HOLDERS, Walk
from cgnet.filters.selection import Filters, Selection
from cgnet.kernel._libbpf import lib
from cgnet.kernel.constant_folding import SECTION
from cgnet.loader import Object
from cgnet.owners.netns import OWN
from cgnet.records._layouts import OWNER, SOCKET_EVENT, OwnerSource, Role, SocketsConfig
from cgnet.records.schema import OWNER_PART, flow_row

FLOW_PART = SOCKET_EVENT.slice("flow")


@pytest.mark.parametrize("by_files", [True, False])
@pytest.mark.parametrize("program", load.WALKS)
@pytest.mark.parametrize("watches", [False, True])
def test_each_way_finds_a_socket_and_who_holds_it(
    program: str, by_files: bool, watches: bool
) -> None:
    filters = Filters(Selection(roles=frozenset(Role)))
    constants = load.constants_of(filters, SocketsConfig(watches=watches))
    programs = {program, *[HOLDERS] * by_files, *[load.QUEUES] * watches}
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
        load._load(programs, filters, constants, None) as obj,
    ):
        walk = Walk(obj, filters, by_files=by_files)
        for _ in range(2):  # a second listing begins anew
            walk.begin()
            assert OWN.stat().st_ino in {each.inode for each in walk.namespaces}
            found = {
                (row["sport"], row["dport"]): raw
                for batch in walk.records(listeners=True, connections=True)
                for raw in batch
                if (row := flow_row(raw[FLOW_PART]))["saddr"] == "127.0.0.1"
            }
            mine = near.getsockname()[1], server.getsockname()[1]
            for flow, source in {
                mine: OwnerSource.OWNER_SEEDED,
                mine[::-1]: OwnerSource.OWNER_INHERITED,  # it waits for accept()
                (mine[1], 0): OwnerSource.OWNER_SEEDED,
            }.items():
                _, _, told, _, _, pid, uid, _ = OWNER.packed.unpack(found[flow][OWNER_PART])
                assert (told, pid, uid) == (source, os.getpid(), 0), flow
            assert sum(walk.missed) == 0


@pytest.mark.parametrize("program", [*load.WALKS, load.QUEUES])
def test_a_verifier_that_knows_no_constants_takes_the_programs(program: str) -> None:
    """As that of a kernel 5.4: it walks what is for other options, too."""
    with Object(load.PATH) as obj:
        obj.keep({program}, set())
        lib.bpf_map__set_map_flags(obj.map(SECTION).handle, 0)
        obj.load()
