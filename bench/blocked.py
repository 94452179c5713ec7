# SPDX-License-Identifier: BSD-2-Clause
"""A load of packets that a firewall drops, one for each socket: ``blocked.py SECONDS``.

Run it in a network namespace of its own; it prints how many sockets tried to connect.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time

PORT = 9
RULES = (
    "add table ip blocked; "
    "add chain ip blocked output { type filter hook output priority 0; }; "
    f"add rule ip blocked output tcp dport {PORT} drop"
)


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["nft", RULES], check=True)
    end, count = time.monotonic() + float(sys.argv[1]), 0
    while time.monotonic() < end:
        with socket.socket() as sock:
            sock.settimeout(0)
            sock.connect_ex(("127.0.0.1", PORT))
        count += 1
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()
