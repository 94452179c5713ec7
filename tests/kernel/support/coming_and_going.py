# SPDX-License-Identifier: BSD-2-Clause
"""Processes that come and go until stdin ends: each has a new network namespace, or joins one.

Arguments: names of namespaces to join; the last one is the parent of their cgroups.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
from itertools import cycle
from pathlib import Path

from many_namespaces import CLONE_NEWNET, connect, enter_new

CONNECTIONS = 5


def live(name: str, cgroup: Path) -> None:
    """Open connections, end some of them, and exit with the others."""
    cgroup.mkdir()
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    if name:
        with Path("/run/netns", name).open() as place:
            ctypes.CDLL(None).setns(place.fileno(), CLONE_NEWNET)
    else:
        enter_new("")
    server = socket.create_server(("127.0.0.1", 0))
    pairs = [connect(server) for _ in range(CONNECTIONS)]
    for near, far in pairs[::2]:
        near.close()
        far.close()


def main() -> None:
    *names, parent = sys.argv[1:]
    print("begun", flush=True)
    for number, name in enumerate(cycle(["", *names])):
        cgroup = Path(parent) / str(number)
        child = os.fork()
        if not child:
            live(name, cgroup)
            os._exit(0)
        os.waitpid(child, 0)
        cgroup.rmdir()
        if select.select([sys.stdin], [], [], 0)[0]:
            return


if __name__ == "__main__":
    main()
