# SPDX-License-Identifier: BSD-2-Clause
"""What ``ss -tanmoi`` says, as rows that can be compared with those of ``cgnet sockets``."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from socket_lists import FLOW, by_flow

if TYPE_CHECKING:
    from harness import Row

STATES = {
    "ESTAB": "ESTABLISHED", "SYN-SENT": "SYN_SENT", "SYN-RECV": "SYN_RECV", "FIN-WAIT-1": "FIN_WAIT1",
    "FIN-WAIT-2": "FIN_WAIT2", "TIME-WAIT": "TIME_WAIT", "CLOSE-WAIT": "CLOSE_WAIT",
    "LAST-ACK": "LAST_ACK", "LISTEN": "LISTEN", "CLOSING": "CLOSING",
}  # fmt: skip
TIMERS = {"on": "on", "keepalive": "keepalive", "timewait": "timewait", "persist": "probe"}
UNITS = {"ms": 1000, "sec": 10**6, "min": 60 * 10**6}
EXACT = ("recv_q", "send_q", "timer", "cwnd", "ssthresh", "mss", "drops")
# Between both looks time passes; ss rounds.
ABOUT = {"srtt_us": 2, "min_rtt_us": 2, "timer_us": 50_000}
# ss tells longer times in whole minutes, or seconds.
MINUTE_US, SECOND_US, SECONDS_US = 60_000_000, 1_000_000, 10_000_000
NUMBERS = {"cwnd": "cwnd", "ssthresh": "ssthresh", "mss": "mss", "notsent": "unsent"}


def end(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    address = address.strip("[]").partition("%")[0].removeprefix("::ffff:")
    return {"*": "::"}.get(address, address), 0 if port == "*" else int(port)


def time_us(text: str) -> int:
    """Parse ``1min59sec``, ``12ms``, ``3.5sec``, or nothing for 0."""
    found = re.findall(r"([0-9.]+)(ms|sec|min)", text)
    assert found or not text, text
    return round(sum(float(number) * UNITS[unit] for number, unit in found))


def parse(line: str) -> Row:
    state, recv_q, send_q, local, far, *info = line.split()
    saddr, sport = end(local)
    daddr, dport = end(far)
    row: Row = {
        "state": STATES[state], "recv_q": int(recv_q), "send_q": int(send_q), "saddr": saddr,
        "sport": sport, "daddr": daddr, "dport": dport, "timer": "none",
    }  # fmt: skip
    for each in info:
        name, _, value = each.partition(":")
        if name == "timer":
            kind, left, _ = value.strip("()").split(",")
            row["timer"], row["timer_us"] = TIMERS[kind], time_us(left)
        elif name in NUMBERS:
            row[NUMBERS[name]] = int(value)
        elif name == "rtt":
            row["srtt_us"] = round(float(value.partition("/")[0]) * 1000)
        elif name == "minrtt":
            row["min_rtt_us"] = round(float(value) * 1000)
        elif name == "retrans":
            row["retrans"] = int(value.partition("/")[2])
        elif name in ("busy", "rwnd_limited", "sndbuf_limited"):
            row[f"{name}_us"] = int(value.partition("ms")[0]) * 1000
    rate = re.search(r"delivery_rate (\d+)bps", line)
    if rate:
        row["delivery_rate"] = int(rate[1]) // 8
    drops = re.search(r",d(\d+)\)", line)
    if drops and row["state"] == "LISTEN":
        row["drops"] = int(drops[1])
    return row


def in_namespace(netns: str) -> list[Row]:
    command = ["ip", "netns", "exec", netns, "ss", "-tanmoiOH"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [parse(line) for line in done.stdout.splitlines()]


def settled(before: list[Row], after: list[Row]) -> list[Row]:
    """Return rows with the values that didn't change between two looks."""
    later = by_flow(after)
    return [
        {
            field: value
            for field, value in row.items()
            if field in FLOW
            or later[flow].get(field) == value
            or (field in ABOUT and later[flow]["state"] == row["state"])
        }
        for flow, row in by_flow(before).items()
        if flow in later
    ]


def check(ours: list[Row], theirs: list[Row], apart_us: int) -> None:
    """Compare rows of one namespace, from two looks so far apart."""
    mine, yours = by_flow(ours), by_flow(theirs)
    assert sorted(map(str, mine)) == sorted(map(str, yours))
    for flow, row in yours.items():
        assert mine[flow]["state"] == row.get("state", mine[flow]["state"]), flow
        changes = (
            ("cwnd", "ssthresh")
            if mine[flow]["state"] in ("SYN_SENT", "SYN_RECV", "LISTEN")
            else ()
        )
        for field in EXACT:
            if field in row and field not in changes:
                assert (field, mine[flow][field]) == (field, row[field]), (mine[flow], row)
        for field, least in ABOUT.items():
            if field == "timer_us" and row.get("timer") not in ("keepalive", "timewait"):
                continue  # it may have expired, and begun again
            if row.get(field):
                tolerance = least + (MINUTE_US if row[field] >= MINUTE_US else 0)
                tolerance += SECOND_US if row[field] >= SECONDS_US else 0
                tolerance += apart_us if field == "timer_us" else 0
                assert abs(mine[flow][field] - row[field]) <= tolerance, (field, mine[flow], row)
