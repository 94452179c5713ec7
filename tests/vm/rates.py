# SPDX-License-Identifier: BSD-2-Clause
"""What is left, in a guest, of the rate of connections beside those who follow each packet."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from cost import PATIENCE_S, make_connections
from kept import ratio
from others import OtherError
from pwru import PROGRAM
from ratios import BESIDE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONNECTIONS, RUNS = 200, 3
THEIRS = (str(PROGRAM), "--output-tuple", "--timestamp", "relative", "tcp")
# What they say once they run.
OUR_WORD, THEIR_WORD = "cgnet: tracing", "Listening for events"


def rate() -> float:
    """Return connections a second."""
    began = time.monotonic()
    make_connections(CONNECTIONS)
    return CONNECTIONS / (time.monotonic() - began)


@contextmanager
def running(command: tuple[str, ...], word: str) -> Iterator[None]:
    """Run it until the end of the body, from where it says the word. Raises OtherError."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stderr
    last = ""
    try:
        for line in process.stderr:
            if word in line:
                break
            last = line.strip()
        else:
            raise OtherError(f"ended with {process.wait()}: {last[:100]}")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def measure_all(cgnet: Path) -> dict[str, float | str]:
    """Return what is left of the rate beside each way; a text if it doesn't run here."""
    found: dict[str, float | str] = {}
    for name in BESIDE:
        command, word = (str(cgnet), *name.split(), "-o", "json"), OUR_WORD
        if name == "pwru":
            command, word = THEIRS, THEIR_WORD
        try:
            found[name] = ratio(partial(running, command, word), rate, RUNS).median
        except (OtherError, FileNotFoundError) as error:
            found[name] = str(error)
    return found
