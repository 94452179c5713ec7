# SPDX-License-Identifier: BSD-2-Clause
"""Fill a namespace's table of tracked connections: the limit is the whole host's, and isn't changed."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING

from harness import in_netns, need

if TYPE_CHECKING:
    from pathlib import Path

PORTS = 60_000


def fill(netns: Path, first: int, last: int) -> None:
    """Add connections of these numbers, all assured: the kernel evicts others to make room."""
    with tempfile.NamedTemporaryFile("w", suffix=".conntrack") as rules:
        for number in range(first, last):
            high, port = divmod(number, PORTS)
            host, port = f"198.18.0.{high + 1}", port + 1024
            rules.write(
                f"-I -p tcp -s {host} -d 198.19.0.1 --sport {port} --dport 9 --state ESTABLISHED "
                "-u ASSURED,SEEN_REPLY -t 3000\n"
            )
        rules.flush()
        command = ["nsenter", f"--net={netns}", need("conntrack"), "-R", rules.name]
        subprocess.run(command, capture_output=True)


def dropped(netns: str) -> int:
    """Return how many packets found no room."""
    names, *values = in_netns(netns, "cat", "/proc/net/stat/nf_conntrack").splitlines()
    column = names.split().index("drop")
    return sum(int(each.split()[column], 16) for each in values)
