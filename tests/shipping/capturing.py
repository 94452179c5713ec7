# SPDX-License-Identifier: BSD-2-Clause
"""One real connection, seen by a cgnet that was installed somewhere."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from typing import Any

PATIENCE = 60  # seconds until a run that says nothing has failed


def _wait_for_tracing(process: subprocess.Popen[bytes]) -> None:
    """Wait for the line on stderr after which connections are seen."""
    assert process.stderr
    said, end = b"", time.monotonic() + PATIENCE
    while b"cgnet: tracing" not in said:
        ready, _, _ = select.select([process.stderr], [], [], max(0, end - time.monotonic()))
        more = os.read(process.stderr.fileno(), 1 << 16) if ready else b""
        assert more, f"cgnet doesn't trace: {said.decode()}"
        said += more


def connect_over_loopback() -> int:
    """Make one connection; return the port that was connected to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        return int(port)


def captured(command: list[str]) -> tuple[dict[str, Any], int]:
    """Run `COMMAND connect` on this process; return its row and the port that was connected to."""
    options = f"connect --pid {os.getpid()} -o json --limit 1 --duration {PATIENCE}".split()
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    )
    try:
        _wait_for_tracing(process)
        port = connect_over_loopback()
        out, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said.decode()
    rows = [json.loads(line) for line in out.splitlines()]
    return next(row for row in rows if row["type"] == "connect"), port


def assert_sees_a_connection(command: list[str]) -> None:
    """The row is that of the connection, with its owner."""
    row, port = captured(command)
    assert (row["result"], row["daddr"], row["dport"]) == ("ok", "127.0.0.1", port)
    assert (row["pid"], row["owner_source"]) == (os.getpid(), "learned")
