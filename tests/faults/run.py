# SPDX-License-Identifier: BSD-2-Clause
"""Run `cgnet why` on each fault, and print the table and the score: `make faults`.

The faults are real, in network namespaces and cgroups of their own. Each checks without cgnet that
its user sees it, else the trial is broken. WHY tells whether `why` was started before the trouble
began or after. A fault that can't be made on this host is counted as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "kernel/support")]

from case import AFTER  # noqa: E402
from evidence import save_evidence  # noqa: E402
from score import HEADER, line, passed, totals  # noqa: E402
from trial import ALL_MODES, DURATION_S, run_trial, trials  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="NAME", help="faults whose names have this")
    add("--family", type=int, action="append", choices=(4, 6), help="IPv4 or IPv6 alone")
    add("--mode", action="append", choices=ALL_MODES, help="one of the two modes alone")
    add("--duration", type=float, default=DURATION_S, metavar="SECONDS", help="of each `why`")
    add(
        "--option",
        action="append",
        default=[],
        help="another option of `why`, as --option=--hook=…",
    )
    add("--list", action="store_true", help="list the trials, and run none")
    add("--json", type=Path, metavar="FILE", help="write each result with all that was found")
    add("--evidence", type=Path, metavar="DIR", help="run no `why`: save what other commands show")
    return parser.parse_args()


def main() -> int:
    asked = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # namespaces and cgroups are removed
    chosen = list(trials(asked.only, asked.family or [4, 6], asked.mode or ALL_MODES))
    if asked.list:
        for case, family, mode in chosen:
            print(
                f"{case.name:<52} v{family} {mode:<7} {case.not_run and 'not run: ' + case.not_run}"
            )
        return 0
    if os.geteuid() != 0:
        sys.exit("the faults make namespaces and cgroups: run them as root")
    if asked.evidence:
        for case, family, mode in chosen:
            if mode == AFTER and not case.not_run:
                print(save_evidence(case, family, asked.evidence), flush=True)
        return 0
    results = []
    print(HEADER, flush=True)
    with asked.json.open("w") if asked.json else open(os.devnull, "w") as out:  # noqa: PTH123
        for case, family, mode in chosen:
            results.append(run_trial(case, family, mode, asked.duration, *asked.option))
            print(line(results[-1]), flush=True)
            out.write(json.dumps(results[-1].as_json()) + "\n")
            out.flush()
    print("\n".join(totals(results)))
    return not passed(results)


if __name__ == "__main__":
    sys.exit(main())
