# SPDX-License-Identifier: BSD-2-Clause
"""What ``ss -tanmoi`` says, as rows that can be compared with those of ``cgnet sockets``."""

from __future__ import annotations

import re
import subprocess
from typing import Any

Row = dict[str, Any]
STATES = {
    "ESTAB": "ESTABLISHED", "SYN-SENT": "SYN_SENT", "SYN-RECV": "SYN_RECV", "FIN-WAIT-1": "FIN_WAIT1",
    "FIN-WAIT-2": "FIN_WAIT2", "TIME-WAIT": "TIME_WAIT", "CLOSE-WAIT": "CLOSE_WAIT",
    "LAST-ACK": "LAST_ACK", "LISTEN": "LISTEN", "CLOSING": "CLOSING",
}  # fmt: skip
TIMERS = {"on": "on", "keepalive": "keepalive", "timewait": "timewait", "persist": "probe"}
UNITS = {"ms": 1000, "sec": 10**6, "min": 60 * 10**6}
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
