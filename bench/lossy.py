# SPDX-License-Identifier: BSD-2-Clause
"""A load of data of which a firewall drops one packet in a hundred: ``lossy.py SECONDS``.

Run it in a network namespace of its own; it prints how many bytes arrived.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from threading import Thread

PORT = 9999
RULES = (
    "add table ip lossy; "
    "add chain ip lossy input { type filter hook input priority 0; }; "
    f"add rule ip lossy input tcp dport {PORT} numgen random mod 100 == 0 drop"
)
SIZE = 1 << 16


def send(seconds: float) -> None:
    """Send for so long."""
    end = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", PORT)) as sock:
        while time.monotonic() < end:
            sock.sendall(bytes(SIZE))


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
    with socket.create_server(("127.0.0.1", PORT)) as server:
        sender = Thread(target=send, args=(float(sys.argv[1]),))
        subprocess.run(["nft", RULES], check=True)
        sender.start()
        with server.accept()[0] as sock:
            count = 0
            while got := len(sock.recv(SIZE)):
                count += got
        sender.join()
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()
