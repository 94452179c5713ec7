# SPDX-License-Identifier: BSD-2-Clause
"""Other tools in a guest, from this host's packages."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import measure
from rivals import CONSTANTS, HEADERS, IN_TRACEFS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACES = "/usr/sbin:/usr/bin:/usr/share/bpftrace/tools"
READY_S = 60.0  # emulated, bpftrace takes some seconds
ENDING_S = 10.0
WARMING = 20  # connections


class OtherError(Exception):
    """It doesn't run here."""


def _command(tool: str, folder: str) -> list[str]:
    """Return what runs a tool. Raises OtherError."""
    path = shutil.which(tool, path=PLACES)
    if not path:
        raise OtherError(f"{tool} isn't installed")
    if not tool.endswith(".bt"):
        return [path]
    script = Path(folder) / tool
    script.write_text(HEADERS.sub(CONSTANTS, Path(path).read_text()))
    return ["bpftrace", str(script)]


@contextmanager
def running(tool: str, load: Callable[[int], None]) -> Iterator[list[measure.Foreign]]:
    """Run it until the end of the body; yield its programs once they run. Raises OtherError."""
    before = set(measure.loaded())
    with TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        enter = ("unshare", "--mount", "sh", "-c", IN_TRACEFS, "sh")
        with said.open("w") as errors:
            process = subprocess.Popen(
                [*enter, *_command(tool, folder)], stdout=subprocess.DEVNULL, stderr=errors
            )
        try:
            _wait(process, before, load)
            load(WARMING)  # the last of them is attached, and caches are warm
            with measure.foreign(set(measure.loaded()) - before) as programs:
                yield programs
        except OtherError as error:
            lines = said.read_text(errors="replace").split("\n")
            told = next((line for line in lines if "rror" in line or "ail" in line), "")
            raise OtherError(
                f"{tool} {error}: {told[:100]}" if told else f"{tool} {error}"
            ) from None
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], before: set[int], load: Callable[[int], None]) -> None:
    """It says nothing when it is ready: its programs run then. Raises OtherError."""
    latest = time.monotonic() + READY_S
    while process.poll() is None:
        load(1)
        with measure.foreign(set(measure.loaded()) - before) as programs:
            if any(each.stats().run_count for each in programs):
                return
        if time.monotonic() > latest:
            raise OtherError("shows nothing")
    raise OtherError(f"ended with {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
