# SPDX-License-Identifier: BSD-2-Clause
"""Debian's packages of any release: fetched and unpacked, never installed.

apt reads a source list and keeps its lists in a folder of its own: the system's are left alone.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/vm"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://security.debian.org/debian-security"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

Sources = tuple[tuple[str, str], ...]  # mirror, suite


class Apt:
    """apt with lists of its own, in ``build/vm/apt/NAME``. All of it raises CalledProcessError."""

    def __init__(self, name: str, sources: Sources, arch: str) -> None:
        self.place = BUILD / "apt" / name
        for each in ("lists/partial", "archives/partial"):
            (self.place / each).mkdir(parents=True, exist_ok=True)
        lines = [f"deb [signed-by={KEYS}] {url} {suite} main\n" for url, suite in sources]
        (self.place / "sources.list").write_text("".join(lines))
        (self.place / "status").touch()
        settings = {
            "Dir::Etc::sourcelist": self.place / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": self.place / "lists",
            "Dir::State::status": self.place / "status",
            "Dir::Cache": self.place,
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self.options = [f"-o{key}={value}" for key, value in settings.items()]

    def update(self) -> None:
        """Fetch the lists of packages."""
        run("apt-get", *self.options, "-qq", "--error-on=any", "update")

    def depends(self, package: str) -> set[str]:
        """Return the names of the packages that one takes."""
        text = run("apt-cache", *self.options, "depends", "--important", package)
        return set(re.findall(r"Depends: (\S+)", text))

    def unpack(self, packages: list[str], place: Path) -> None:
        """Fetch packages, and put their files below ``place``."""
        folder = self.place / "archives"
        run("apt-get", *self.options, "-qq", "download", *packages, cwd=folder)
        place.mkdir(parents=True, exist_ok=True)
        for package in sorted(folder.glob("*.deb")):
            run("dpkg", "-x", package, place)


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a program, and return what it printed. Raises CalledProcessError."""
    words = list(map(str, command))
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=cwd).stdout


def last_words(error: subprocess.CalledProcessError) -> str:
    """Return what a program said at last."""
    said = (error.stderr or "").strip().splitlines()
    return said[-1] if said else str(error)
