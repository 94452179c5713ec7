# SPDX-License-Identifier: BSD-2-Clause
"""Bulk transfer over loopback by iperf3; the scheduler places its two ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from kept import Kept, ratio

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

HOST, PORT = "127.0.0.1", "5201"
SECONDS, PAIRS = 1.0, 21  # many short runs: single ones scatter by some 10 %
LISTENS = "Server listening"


def require_iperf3() -> None:
    """Raise SystemExit without iperf3: a run takes minutes until it is needed."""
    if not shutil.which("iperf3"):
        raise SystemExit("the bench measures throughput by iperf3, which isn't installed")


def bulk(seconds: float = SECONDS) -> float:
    """Return the received bits per second. Raises CalledProcessError."""
    server = subprocess.Popen(
        ["iperf3", "--server", "--one-off", "--forceflush", "--bind", HOST, "--port", PORT],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        next(line for line in server.stdout if LISTENS in line)
        client = ["iperf3", "--client", HOST, "--port", PORT, "--time", str(seconds), "--json"]
        done = subprocess.run(client, check=True, capture_output=True, text=True)
        server.communicate()
    finally:
        server.kill()
        server.wait()
    received: float = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
    return received


def bulk_ratio(beside: Callable[[], AbstractContextManager[Any]]) -> Kept:
    """Return the ratio of throughput with a tracer to that without."""
    return ratio(beside, bulk, PAIRS)
