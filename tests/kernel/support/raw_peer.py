# SPDX-License-Identifier: BSD-2-Clause
"""A TCP peer made of packets: a TUN device whose other end answers a SYN as requested.

Answers: "silence"; "refuse" (RST); "late" (SYN+ACK to the second SYN only); "cross_reset" (a SYN of
its own, a simultaneous open, then RST); "unreachable" (ICMP host unreachable).
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import select
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import in_netns, ip, new_netns, unique

if TYPE_CHECKING:
    from collections.abc import Iterator

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
FIN, SYN, RST, ACK = 1, 2, 4, 16
LOCAL, PEER = "192.0.2.1", "192.0.2.2"


def checksum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(protocol: int, payload: bytes) -> bytes:
    source, target = ipaddress.ip_address(PEER).packed, ipaddress.ip_address(LOCAL).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    mark = checksum(head + source + target)
    return head[:10] + struct.pack("!H", mark) + source + target + payload


def segment(sport: int, dport: int, seq: int, ack: int, flags: int) -> bytes:
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 65535, 0, 0)
    addresses = ipaddress.ip_address(PEER).packed + ipaddress.ip_address(LOCAL).packed
    mark = checksum(addresses + struct.pack("!HH", 6, len(head)) + head)
    return packet(6, head[:16] + struct.pack("!H", mark) + head[18:])


class Peer:
    """Answers SYNs that arrive at a TUN device."""

    def __init__(self, fd: int, answer: str) -> None:
        self.fd = fd
        self.answer = answer
        self.syns = 0
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End before the device closes: its descriptor's number will be another device's."""
        os.close(self._stopper)
        self._thread.join()
        os.close(self._stop)

    def _serve(self) -> None:
        while self._stop not in select.select([self.fd, self._stop], [], [])[0]:
            data = os.read(self.fd, 2048)
            if len(data) < 40 or data[0] >> 4 != 4 or data[9] != 6:
                continue
            sport, dport, seq, _, _, flags = struct.unpack_from("!HHIIBB", data, 20)
            for reply in self._replies(data, sport, dport, seq, flags):
                os.write(self.fd, reply)

    def _replies(
        self, data: bytes, sport: int, dport: int, seq: int, flags: int
    ) -> Iterator[bytes]:
        syn_only = flags & (SYN | ACK) == SYN
        self.syns += syn_only
        if self.answer == "refuse" and syn_only:
            yield segment(dport, sport, 0, seq + 1, RST | ACK)
        elif self.answer == "late" and syn_only and self.syns > 1:
            yield segment(dport, sport, 1000, seq + 1, SYN | ACK)
        elif self.answer == "cross_reset" and syn_only:
            yield segment(dport, sport, 1000, 0, SYN)
        elif self.answer == "cross_reset" and flags & ACK:
            yield segment(dport, sport, 1001, seq + 1, RST | ACK)
        elif self.answer == "unreachable" and syn_only:
            body = struct.pack("!BBHI", 3, 1, 0, 0) + data[:28]
            yield packet(1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


@contextmanager
def peer(answer: str) -> Iterator[tuple[str, Peer]]:
    """Yield a namespace with LOCAL, and with PEER behind a TUN device, which gives ``answer``."""
    with new_netns() as netns:
        device = unique("t")[:15]
        fd = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
            ip("link", "set", device, "netns", netns)
            ip("-n", netns, "addr", "add", f"{LOCAL}/24", "dev", device)
            ip("-n", netns, "link", "set", device, "up")
            in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_syn_retries=1")
            answering = Peer(fd, answer)
            try:
                yield netns, answering
            finally:
                answering.stop()
        finally:
            os.close(fd)
