# SPDX-License-Identifier: BSD-2-Clause
"""The kernel cost of ``cgnet retrans``: of a drop, of a packet that is freed, and of a resend."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tracer
from drop_cost import blocked
from measure import HOOKS, RING_BYTES, Watched, beside_empty

from cgnet.commands.retrans import Retrans
from cgnet.filters.selection import Filters, Selection
from cgnet.run.command import Options
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 3.0
RUNS = 5
EMPTY = "drop_{}"
LOSSY = Path(__file__).with_name("lossy.py")
OPTIONS = Options(
    selection=Selection(), counting=None, interval=None, output="json", fields=None, no_header=False,
    duration=None, limit=None, buffer=RING_BYTES, max_rate=None, strict=False, btf=None, hook=None,
    transport=None,
)  # fmt: skip
# What a program is for, by its name; the load that makes it run.
DROP, FREED, RESENT = "drop", "syn_arrived", "retransmit"


def lossy() -> int:
    """Send data of which a firewall drops some; return the number of bytes."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, LOSSY, str(SECONDS)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


def ordinary() -> int:
    """Make ordinary connections; return their number."""
    return tracer.load(SECONDS, 1).connections


def messages() -> int:
    """Send messages between Unix sockets, whose packets are freed; return their number."""
    end, count = time.monotonic() + SECONDS, 0
    near, far = socket.socketpair()
    with near, far:
        while time.monotonic() < end:
            near.send(b"x")
            far.recv(1)
            count += 1
    return count


def watched(hook: str, work: Callable[[], int]) -> Watched[int]:
    """Measure with a ring that is read as cgnet reads it."""
    command = Retrans(OPTIONS)
    return beside_empty(Launch(command, Filters(), RING_BYTES), hook, EMPTY, work)


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in HOOKS:
        for what, work, name in (
            ("a SYN that a firewall drops", blocked, DROP),
            ("a drop among data", lossy, DROP),
            ("a SYN that arrives", ordinary, FREED),
            ("another packet that is freed", messages, FREED),
            ("a segment that is sent again", lossy, RESENT),
        ):
            found = [watched(hook, work) for _ in range(RUNS)]
            ns = statistics.median(each.programs[name].each - each.empty.each for each in found)
            runs = statistics.median(each.programs[name].runs for each in found)
            add(f"retrans: {what}, {hook}", f"{ns:.0f} ns net, of {runs:.0f}", "reported")
