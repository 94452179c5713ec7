# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's own daemon for virtiofs, called as if it were the newer one of Rust that vng knows.

Its options are others, it has no version to ask for, and it writes no file with its PID.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

OLD = "/usr/lib/qemu/virtiofsd"
CACHES = {"never": "none"}  # by the newer one's words
TELLS = {"--version": "virtiofsd 1.10.0", "-V": "virtiofsd 1.10.0",
         "--help": "--socket-path --shared-dir --cache --sandbox"}  # fmt: skip


def main() -> None:
    for word, answer in TELLS.items():
        if word in sys.argv[1:]:
            print(answer)
            return
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--socket-path", required=True)
    parser.add_argument("--shared-dir", required=True)
    parser.add_argument("--cache", default="auto")
    given, _ = parser.parse_known_args()
    Path(f"{given.socket_path}.pid").write_text(str(os.getpid()))
    settings = (
        f"source={given.shared_dir}", f"cache={CACHES.get(given.cache, given.cache)}",
        "sandbox=chroot", "xattr", "no_posix_lock",
    )  # fmt: skip
    options = [word for each in settings for word in ("-o", each)]
    os.execv(OLD, [OLD, f"--socket-path={given.socket_path}", *options])


main()
