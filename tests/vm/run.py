# SPDX-License-Identifier: BSD-2-Clause
"""Boot Debian's kernels, run the kernel tests in them, and write docs/kernels.md: `make test-vm`.

Guests run the objects that are built. A boot for each kernel, layout of cgroups, and part of the tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import boot
import pwru
from apt import ROOT
from kernels import KERNELS, MissingKernelError, Unpacked, fetch
from subset import LAYOUTS, PARTS, parts_of
from table import joined, put_between_marks, rows_of_kernel, table, told_before

DOCUMENT = ROOT / "docs/kernels.md"
LAST_LINES = 20  # shown of what a guest without results printed
GUEST = Path(__file__).with_name("guest.py")


def results_of(name: str, layout: str, part: str) -> Path:
    return boot.SHARED / f"{name}-{layout}-{part}.json"


def try_one(name: str, kernel: Unpacked, layout: str, part: str) -> str:
    """Run one guest; return what was wrong, "" if nothing was."""
    results = results_of(name, layout, part)
    results.unlink(missing_ok=True)
    log = results.with_suffix(".log")
    began = time.monotonic()
    words = [sys.executable, str(GUEST), layout, part, str(boot.IN_GUEST / results.name)]
    ended = boot.boot(kernel, words, log)
    took = f"{time.monotonic() - began:.0f} s"
    if not results.exists():
        print(*log.read_text(errors="replace").splitlines()[-LAST_LINES:], sep="\n")
        results.write_text(json.dumps(failure(kernel, layout, "ended" if ended else "was ended")))
        return f"{kernel.release} {layout} {part}: no results after {took}; see {log}"
    found = json.loads(results.read_text())
    failed = [each for each in found["tests"] if each["outcome"] == "failed"]
    for each in failed:
        print(f"  failed: {each['test']}: {each['why']}")
    done = found["lacks"] or f"{len(found['tests'])} tests, {len(failed)} failed"
    print(f"{kernel.release} {layout} {part}: {done}, {took}", flush=True)
    if not found["lacks"] and not found["tests"] and not found.get("costs"):
        return f"{kernel.release} {layout} {part}: no test ran; see {log}"
    return f"{kernel.release} {layout} {part}: {len(failed)} failed; see {log}" if failed else ""


def failure(kernel: Unpacked, layout: str, how: str) -> dict[str, Any]:
    lacks = f"the guest {how} without results"
    return {
        "release": kernel.release,
        "layout": layout,
        "lacks": lacks,
        "doctor": None,
        "tests": [],
    }


def write_table() -> None:
    document = DOCUMENT.read_text()
    before, told = told_before(document), []
    for kernel in KERNELS:
        guests = {}
        for layout in LAYOUTS:
            places = [results_of(kernel.name, layout, part) for part in parts_of(layout)]
            found = [json.loads(path.read_text()) for path in places if path.exists()]
            if found:
                guests[layout] = joined(found)
        told += rows_of_kernel(kernel.name, guests, before)
    DOCUMENT.write_text(put_between_marks(document, table(told)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [kernel.name for kernel in KERNELS]
    parser.add_argument("--kernel", action="append", choices=names, help="all by default")
    parser.add_argument("--layout", action="append", choices=LAYOUTS, help="all by default")
    parser.add_argument("--part", action="append", choices=PARTS, help="all by default")
    parser.add_argument("--untold", action="store_true", help="leave docs/kernels.md as it is")
    given = parser.parse_args()
    boot.prepare()
    if "costs" in (given.part or PARTS) and (lacks := pwru.fetch()):
        print(f"no pwru beside cgnet: {lacks}")
    wrong = []
    for kernel in KERNELS:
        if kernel.name not in (given.kernel or names):
            continue
        try:
            unpacked = fetch(kernel)
        except MissingKernelError as error:
            wrong.append(f"{kernel.name}: {error}")
            continue
        for layout in given.layout or LAYOUTS:
            parts = [each for each in parts_of(layout) if each in (given.part or PARTS)]
            wrong += [try_one(kernel.name, unpacked, layout, part) for part in parts]
    if not given.untold:
        write_table()
    told = [each for each in wrong if each]
    print(*told, sep="\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
