# SPDX-License-Identifier: BSD-2-Clause
"""Bulk transfer over loopback for so many seconds; prints bytes and seconds."""

from __future__ import annotations

import os
import socket
import sys
import time

PIECE = 128 * 1024


def main() -> None:
    seconds = float(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        if os.fork() == 0:
            with socket.create_connection(server.getsockname()) as client:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    client.sendall(bytes(PIECE))
            os._exit(0)
        sock = server.accept()[0]
    room = bytearray(PIECE)
    received, began = 0, time.monotonic()
    while size := sock.recv_into(room):
        received += size
    print(received, time.monotonic() - began)
    os.wait()


if __name__ == "__main__":
    main()
