# SPDX-License-Identifier: BSD-2-Clause
"""Two network namespaces with an exact delay between them, and an adjustable loss.

Run as ``python delay_line.py FD FD DELAY_S``: a process forwards packets between two TUN devices.
Each line on stdin is a JSON object of values to change, and is answered with the number lost so far:
``loss``, the share of packets to lose; ``max_size``, larger packets are lost; ``delay_s`` each way;
``late``, the share of packets that take ``late_s`` longer, and are overtaken.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LEFT, RIGHT = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
MTU, QUEUE = 1500, 20000
BATCH = 64  # packets of one side, before serving the other side and due packets


def carry(one: int, other: int, delay_s: float) -> None:
    across = {one: other, other: one}
    chance, lost, count = random.Random(1), 0, 0
    now_set = {"loss": 0.0, "max_size": MTU, "delay_s": delay_s, "late": 0.0, "late_s": 0.0}
    way: list[tuple[float, int, int, bytes]] = []  # a heap: packets by when they are due
    while True:
        wait = max(way[0][0] - time.monotonic(), 0) if way else None
        for fd in select.select([*across, 0], [], [], wait)[0]:
            if fd == 0:
                line = os.read(0, 4096)
                if not line:
                    return
                now_set |= json.loads(line)
                os.write(1, f"{lost}\n".encode())
                continue
            for _ in range(BATCH):
                try:
                    data = os.read(fd, 2048)
                except BlockingIOError:
                    break
                if chance.random() < now_set["loss"] or len(data) > now_set["max_size"]:
                    lost += 1
                    continue
                late_s = now_set["late_s"] if chance.random() < now_set["late"] else 0
                count += 1
                due = time.monotonic() + now_set["delay_s"] + late_s
                heapq.heappush(way, (due, count, across[fd], data))
        now = time.monotonic()
        while way and way[0][0] <= now:
            _, _, fd, data = heapq.heappop(way)
            os.write(fd, data)


class Line:
    """The test's side of the line; ``left`` and ``right`` are namespaces."""

    def __init__(self, left: str, right: str, process: subprocess.Popen[str]) -> None:
        self.left, self.right = left, right
        self._process = process

    def lose(self, share: float) -> int:
        """Lose this share of the packets; 1 is all. Return the number lost so far."""
        return self.set(loss=share)

    def set(self, **values: float) -> int:
        """Change values of the line. Return the number of packets lost so far."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{json.dumps(values)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _device(netns: str, addresses: dict[int, str]) -> int:
    """Return a TUN device's descriptor; the device is up in the namespace."""
    from harness import ip, unique

    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        device = unique("t")[:15]
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        ip("link", "set", device, "netns", netns)
        ip("-n", netns, "link", "set", device, "mtu", str(MTU), "txqueuelen", str(QUEUE), "up")
        ip("-n", netns, "addr", "add", f"{addresses[4]}/24", "dev", device)
        ip("-n", netns, "addr", "add", f"{addresses[6]}/64", "dev", device, "nodad")
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def delay_line(delay_s: float) -> Iterator[Line]:
    """Yield a line with a delay of ``delay_s`` each way."""
    from harness import PYTHON, new_netns

    with ExitStack() as stack:
        left, right = (stack.enter_context(new_netns()) for _ in range(2))
        fds = []
        for netns, addresses in ((left, LEFT), (right, RIGHT)):
            fds.append(_device(netns, addresses))
            stack.callback(os.close, fds[-1])
        process = subprocess.Popen(
            [PYTHON, str(Path(__file__)), *map(str, fds), str(delay_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=fds,
        )
        stack.enter_context(process)  # waits for the process
        stack.callback(process.kill)
        line = Line(left, right, process)
        line.lose(0)
        yield line


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
