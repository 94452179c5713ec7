# SPDX-License-Identifier: BSD-2-Clause
"""Run a command of cgnet, and print as JSON what the verifier spent on its programs."""

from __future__ import annotations

import json
import logging
import re
import sys

from cgnet.cli import main
from cgnet.loader import Object

LOGGER = "cgnet.libbpf"
SPENT = re.compile(r"verification time (\d+) usec.*?processed (\d+) insns", re.DOTALL)


class Spent(logging.Handler):
    """Adds up the times and instructions in the verifier's log of each program."""

    def __init__(self) -> None:
        super().__init__()
        self.usec = self.instructions = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Read a message of libbpf."""
        if found := SPENT.search(record.getMessage()):
            self.usec += int(found[1])
            self.instructions += int(found[2])


def watch() -> Spent:
    """Have each object log what its programs cost, and return the sums."""
    spent, load = Spent(), Object.load

    def logged(obj: Object) -> None:
        obj.log_briefly()
        load(obj)

    Object.load = logged  # type: ignore[assignment, method-assign]
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(spent)
    logger.propagate = False
    return spent


if __name__ == "__main__":
    spent = watch()
    try:
        main()
    finally:
        found = {"ms": spent.usec / 1000, "instructions": spent.instructions}
        sys.stderr.write(f"{json.dumps(found)}\n")
