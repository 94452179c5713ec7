# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's own counters of a network namespace, as nstat shows them."""

from __future__ import annotations

from collections import Counter

from harness import in_netns


def tcp_counters(netns: str) -> Counter[str]:
    """Return the counters of TCP by nstat's names, as in TcpRetransSegs and TcpExtTCPFastRetrans."""
    lines = in_netns(netns, "cat", "/proc/net/snmp", "/proc/net/netstat").splitlines()
    found: Counter[str] = Counter()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group, *fields = names.split()
        if group in ("Tcp:", "TcpExt:"):
            numbers = map(int, values.split()[1:])
            found.update(dict(zip((group[:-1] + field for field in fields), numbers, strict=True)))
    return found
