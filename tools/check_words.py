# SPDX-License-Identifier: BSD-2-Clause
"""Find words that were retired: `make lint`. Each has a standard term in its place."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bench", "bpf", "src", "tests", "tools")
SUFFIXES = {".c", ".h", ".py", ".sh"}
PASSED_OVER = {"vmlinux.h", Path(__file__).name}
# By a regular expression that matches within a word: the term to use.
RETIRED = {
    r"crowd": "in flight, eviction",
    r"\bbirths?\b|newborn|\bborn\b": "created, tracked",
    r"\byoung\b|grows? old": "recent, promote",
    r"newcomer": "cgroup watch",
    r"journey": "in-flight packet",
    r"(?<![Rr]ound.)\btrips?\b|_trips?\b|\btrips?_": "packet trace, in-flight packet",
    r"outbox": "pending records",
    r"\bparcel": "batch",
    r"\bRemembered\b": "ValueCache",
    r"\bMoment\b": "TimestampField",
    r"\bCompanion\b|\bLeftovers\b": "methods of run.command.Command",
    r"\b_?(MOST|LEAST|LONGEST|DEEPEST|LARGEST)_[A-Z]": "MAX_, MIN_",
    r"\bpuppets?\b|\bstreet\b|\btalkers?\b": "remote, containers, tcp_client",
    r"[Tt]he partner of|\bpartners? of\b": "counterpart of",
}


def main() -> int:
    """Print each place; return 1 if there is any."""
    found = 0
    patterns = {re.compile(pattern): term for pattern, term in RETIRED.items()}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in SUFFIXES or path.name in PASSED_OVER:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for pattern, term in patterns.items():
                    if match := pattern.search(line):
                        found += 1
                        print(f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: say {term}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
