# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel doesn't tell of a drop, from what else was seen.

Kernels before 5.17 tell none. The function that dropped a packet leaves several open; counters,
listeners and programs at cgroups tell which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings.causes import function_of
from cgnet.findings.drop_reasons import RECEIVING, UNSPECIFIED
from cgnet.kernel.program_stats import INGRESS

if TYPE_CHECKING:
    from cgnet.findings.watched import Row, Watched

# ip_route_input_noref(), whose errors these functions drop for.
ROUTING = ("ip_rcv_finish_core", "ip_rcv_finish")
REVERSE_PATH = "TcpExtIPReversePathFilter"
OLD_STAMPS = "TcpExtPAWSEstab"  # what TIME_WAIT refused, too: a counter of its own since 6.15
SYN = "S"
SENDING = "__dev_queue_xmit"  # it drops what a device without a link can't send


def with_reason(w: Watched, row: Row) -> Row:
    """Return a drop's row; with what was found, and ``untold``, if the kernel told no reason."""
    if row.get("reason") not in (None, UNSPECIFIED):
        return row
    found = _found(w, row)
    return row | found | {"untold": True} if found else row


def _found(w: Watched, row: Row) -> dict[str, Any]:
    function = function_of(row)
    if function in ROUTING and _grew(w, row, REVERSE_PATH):
        return {"reason": "IP_RPFILTER"}
    if function in RECEIVING and not row.get("reason") and row["tcp_flags"] == SYN:
        return _of_a_syn(w, row)
    return {}


def with_link(w: Watched, row: Row) -> Row:
    """Return a drop's row; with ``link_down`` if its device couldn't send."""
    if row.get("reason_class") != "resource" or function_of(row) != SENDING or not row.get("dev"):
        return row
    running = w.look.is_running(row["netns"], row["dev"])
    return row | {"link_down": True} if running is False else row


def _grew(w: Watched, row: Row, counter: str) -> bool:
    return w.look.grown(row["netns"], (counter,)).get(counter, 0) > 0


def _of_a_syn(w: Watched, row: Row) -> dict[str, Any]:
    """Return why TCP freed a SYN: for lack of a listener, or in spite of one."""
    there = w.listeners_at(row["dport"], row["netns"])
    listeners = [each for each in there if w.takes(each, row["daddr"])]
    if not listeners:
        return {"reason": "NO_SOCKET", "reason_class": "application"}
    if w.is_answered(row):  # a half-open connection drops the SYN that is sent again
        return {}
    if _grew(w, row, OLD_STAMPS):
        return {"tcp_state": "TIME_WAIT", "reason_class": "peer"}
    owner = listeners[0]
    programs = w.look.programs(owner.get("pid"), owner.get("cgroup"), INGRESS)
    if not programs or not programs[1]:
        return {}
    whose = {name: owner.get(name) for name in ("container", "pod", "cgroup", "cgroup_id", "pid")}
    return {"reason": "SOCKET_FILTER", "reason_class": "firewall", **whose}
