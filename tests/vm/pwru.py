# SPDX-License-Identifier: BSD-2-Clause
"""pwru, for guests: Debian has it since trixie. What it takes, libpcap, is this host's."""

from __future__ import annotations

import subprocess

from apt import BUILD, MIRROR, Apt, last_words

TOOLS = BUILD / "tools"  # guests have a copy of it, at the same place
PROGRAM = TOOLS / "usr/bin/pwru"
SUITE = "trixie"


def fetch() -> str:
    """Have pwru in TOOLS; return why it isn't there, "" if it is."""
    if PROGRAM.exists():
        return ""
    try:
        apt = Apt(SUITE, ((MIRROR, SUITE),), "amd64")
        apt.update()
        apt.unpack(["pwru"], TOOLS)
    except subprocess.CalledProcessError as error:
        return last_words(error)
    return ""
