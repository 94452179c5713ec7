# SPDX-License-Identifier: BSD-2-Clause
"""Run tests/faults in guests of other kernels, and print the score of each: `make faults-vm`.

Options that this script doesn't have are those of tests/faults/run.py. A trial takes most of a
minute where guests are emulated. Results are kept in build/vm/shared, a line of JSON for each trial.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

import boot
from apt import ROOT
from image import unpack
from kernels import KERNELS, MissingKernelError, Unpacked, fetch

FAULTS = ROOT / "tests/faults"
sys.path[:0] = [str(FAULTS), str(ROOT / "tests/kernel/support")]
from score import HEADER, Result, line, totals  # noqa: E402

PODMANS = (
    "/var/lib/containers"  # is the guest's own; all else that it writes to is in /run and /tmp
)
CONDITION_S = 120  # how long a trial waits for each of its conditions
PATIENCE_S = 4 * 3600  # of a guest: trials end by themselves


class Lack(NamedTuple):
    """What kernels before a version don't tell, and the ids whose evidence it is."""

    before: tuple[int, int]
    what: str
    ids: tuple[str, ...]


# docs/why.md says what is told in their place.
LACKS = (
    Lack(
        (5, 17), "reasons of drops",
        (
            "firewall-drop", "mtu-blackhole", "no-listener", "rp-filter", "tcp-memory",
            "time-wait-refused",
        ),
    ),
    Lack((6, 10), "reasons of resets", ("reset-by-peer", "listener-closed")),
)  # fmt: skip


def lacks_of(release: str) -> list[str]:
    """Return a line for each thing that a kernel lacks."""
    major, minor = (int(each) for each in release.split(".")[:2])
    return [
        f"no {lack.what} before {lack.before[0]}.{lack.before[1]}: {', '.join(lack.ids)} rest on less"
        for lack in LACKS
        if (major, minor) < lack.before
    ]


def write_script(script: Path, options: list[str], results: Path) -> None:
    """Write what a guest runs: a kernel's command line has no room for it."""
    trials = [sys.executable, str(FAULTS / "run.py"), "--json", str(results), *options]
    lines = (
        "ip link set lo up",
        "modprobe -a tun nf_conntrack",  # whose settings some faults change
        f"test ! -d {PODMANS} || mount -t tmpfs none {PODMANS}",
        f"CGNET_TESTS_PATIENCE_S={CONDITION_S} {shlex.join(trials)}",
        "true",  # the score is read from the results
    )
    script.write_text("".join(f"{line}\n" for line in lines))


def try_kernel(name: str, kernel: Unpacked, options: list[str]) -> list[Result]:
    """Run the trials in a guest, and print their table and the score."""
    results = boot.SHARED / f"{name}-faults.jsonl"
    results.unlink(missing_ok=True)
    log, script = results.with_suffix(".log"), results.with_suffix(".sh")
    write_script(script, options, boot.IN_GUEST / results.name)
    began = time.monotonic()
    words = ["sh", str(boot.IN_GUEST / script.name)]
    ended = boot.boot(kernel, words, log, patience_s=PATIENCE_S)
    took = time.monotonic() - began
    lines = results.read_text().splitlines() if results.exists() else []
    found = [Result(**json.loads(each)) for each in lines]
    print(f"\n{kernel.release}, {took:.0f} s{'' if ended else '; was ended'}; see {log}")
    print(
        HEADER, *map(line, found), *totals(found), *lacks_of(kernel.release), sep="\n", flush=True
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [kernel.name for kernel in KERNELS]
    parser.add_argument("--kernel", action="append", choices=names, help="5.10 and 6.1 by default")
    parser.add_argument("--image", type=Path, help="another kernel: its image, as for image.py")
    parser.add_argument("--modules", type=Path, help="its /lib/modules/RELEASE, if it needs any")
    given, options = parser.parse_known_args()
    boot.prepare()
    wrong = []
    chosen = given.kernel or ([] if given.image else ["5.10", "6.1"])
    guests = [(each.name, lambda each=each: fetch(each)) for each in KERNELS if each.name in chosen]
    if given.image:
        guests.append(("image", lambda: unpack(given.image, given.modules)))
    for name, get in guests:
        try:
            found = try_kernel(name, get(), options)
        except (MissingKernelError, OSError) as error:
            wrong.append(f"{name}: {error}")
            continue
        if not found:
            wrong.append(f"{name}: no trial ended")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
