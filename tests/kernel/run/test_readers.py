# SPDX-License-Identifier: BSD-2-Clause
"""Readers keep the records that programs emit before the first read, on each CPU."""

from __future__ import annotations

import os
import socket

import pytest

from cgnet.commands.life import COMMAND
from cgnet.filters.selection import Filters, Selection
from cgnet.records._layouts import LIFE_EVENT
from cgnet.run.launch import Launch
from cgnet.run.reader import drain

RING = 1 << 20


@pytest.mark.parametrize("transport", ["ring", "perf"])
def test_the_first_record_of_each_cpu_is_kept(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        filters = Filters(Selection(dport=(str(port),)))
        launch = Launch(COMMAND, filters, RING)
        with launch.start(None, "raw_tp", transport) as obj:
            allowed = os.sched_getaffinity(0)
            try:
                for cpu in allowed:
                    os.sched_setaffinity(0, {cpu})
                    with socket.create_connection(listener.getsockname()):
                        listener.accept()[0].close()
            finally:
                os.sched_setaffinity(0, allowed)
            obj.detach()
            records = [raw for batch in drain(obj.ring("ring")) for raw in batch]
    of_clients = [raw for raw in records if len(raw) == LIFE_EVENT.size]
    assert len(of_clients) == len(allowed)
