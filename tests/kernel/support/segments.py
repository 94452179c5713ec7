# SPDX-License-Identifier: BSD-2-Clause
"""Hand-made TCP packets, valid or not, sent from a remote process."""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING

from raw_peer import ACK, FIN, RST, SYN, checksum

if TYPE_CHECKING:
    from remote_python import RemotePython
    from two_containers import TwoContainers

__all__ = ["ACK", "FIN", "RST", "SYN", "send", "tcp_packet"]
ETH_P = {4: 0x0800, 6: 0x86DD}
DO_NOT_FRAGMENT = 0x4000


def tcp_packet(
    source: tuple[str, int],
    target: tuple[str, int],
    *,
    seq: int = 1,
    ack: int = 0,
    flags: int = SYN,
    hops: int = 64,
    payload: bytes = b"",
    ip_error: int = 0,
    tcp_error: int = 0,
) -> bytes:
    """Return a packet; ``ip_error`` and ``tcp_error`` are added to the right checksums."""
    one, other = ipaddress.ip_address(source[0]), ipaddress.ip_address(target[0])
    head = struct.pack(
        "!HHIIBBHHH", source[1], target[1], seq % 2**32, ack % 2**32, 5 << 4, flags, 65535, 0, 0
    )
    segment = head + payload
    pseudo = one.packed + other.packed + struct.pack("!IHH", len(segment), 0, 6)
    mark = (checksum(pseudo + segment) + tcp_error) % 2**16
    segment = head[:16] + struct.pack("!H", mark) + head[18:] + payload
    if one.version == 6:
        begin = struct.pack("!IHBB", 6 << 28, len(segment), 6, hops)
        return begin + one.packed + other.packed + segment
    begin = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, DO_NOT_FRAGMENT, hops, 6, 0)
    addresses = one.packed + other.packed
    mark = (checksum(begin + addresses) + ip_error) % 2**16
    return begin[:10] + struct.pack("!H", mark) + addresses + segment


def send(remote: RemotePython, containers: TwoContainers, packet: bytes, count: int = 1) -> None:
    """Have the client send a packet from its device to the router."""
    protocol = ETH_P[packet[0] >> 4]
    hardware = bytes.fromhex(containers.router.hardware("to_client").replace(":", ""))
    where = ("c0", protocol, 0, 0, hardware)
    remote.do("raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)")
    remote.do(f"packet, where = bytes.fromhex({packet.hex()!r}), {where}")
    remote.do(f"for _ in range({count}): raw.sendto(packet, where)")
    remote.do("raw.close()")
