# SPDX-License-Identifier: BSD-2-Clause
"""A fake /proc: processes, their open files, and the sockets of network namespaces."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

ESTABLISHED, LISTEN = "01", "0A"
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid …\n"


class Socket(NamedTuple):
    """A line of /proc/PID/net/tcp or tcp6."""

    inode: int
    address: str = "0.0.0.0"
    port: int = 80
    state: str = LISTEN

    def line(self) -> str:
        packed = ip_address(self.address).packed
        words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
        local = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
        none = "0" * len(local)
        return (
            f"   0: {local}:{self.port:04X} {none}:0000 {self.state} 00000000:00000000 "
            f"00:00000000 00000000     0        0 {self.inode} 1 0000000000000000 100 0 0 10 0\n"
        )

    @property
    def file(self) -> str:
        return "tcp6" if ":" in self.address else "tcp"


class ProcTree:
    """A fake /proc, to which tests add processes."""

    def __init__(self, root: Path) -> None:
        self.root = root / "proc"
        self.namespaces = root / "netns"
        self.root.mkdir()
        self.namespaces.mkdir()
        for name in ("self", "net", "sys", "meminfo"):  # entries that aren't processes
            (self.root / name).mkdir()

    def netns(self, name: str = "host") -> int:
        """Return the inode of the namespace with this name."""
        (self.namespaces / name).touch()
        return (self.namespaces / name).stat().st_ino

    def process(
        self,
        pid: int,
        *has: int,
        netns: str = "host",
        sockets: tuple[Socket, ...] = (),
        comm: str = "nginx",
        uid: int = 33,
        cgroup: str = "/a",
    ) -> Path:
        """Create a process with open sockets, by inode; ``sockets`` are those of its namespace."""
        place = self.root / str(pid)
        (place / "fd").mkdir(parents=True)
        (place / "ns").mkdir()
        (place / "net").mkdir()
        self.netns(netns)
        (place / "ns/net").symlink_to(self.namespaces / netns)
        for name in ("tcp", "tcp6"):
            lines = [each.line() for each in sockets if each.file == name]
            (place / "net" / name).write_text(HEADER + "".join(lines), encoding="utf-8")
        targets = ["/dev/null", "pipe:[77]", *(f"socket:[{inode}]" for inode in has)]
        for fd, target in enumerate(targets):
            (place / "fd" / str(fd)).symlink_to(target)
        fields = ["S", "1", *["0"] * 17, "5000", *["0"] * 20]
        (place / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n", encoding="utf-8")
        status = f"Name:\t{comm}\nTgid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        (place / "status").write_text(status, encoding="utf-8")
        (place / "cgroup").write_text(f"1:memory:{cgroup}\n0::/\n", encoding="utf-8")
        (place / "comm").write_text(f"{comm}\n", encoding="utf-8")
        return place
