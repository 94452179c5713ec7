# SPDX-License-Identifier: BSD-2-Clause
"""A root folder with an RPM database of its own, as RHEL-like systems lay it out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

HOST = Path(__file__).with_name("host.spec")
ENTER = str(Path(__file__).with_name("enter.sh"))
DATABASE = Path("var/lib/rpm")


class ElRoot(NamedTuple):
    """The root; ``python`` is the path that its programs call the host's Python by."""

    path: Path
    python: str

    def rpm(self, *arguments: str | Path) -> str:
        """Run rpm on this root and its database; what it prints is returned."""
        return checked("rpm", "--root", self.path, "--dbpath", f"/{DATABASE}", *arguments)

    def provide(self, capabilities: tuple[str, ...], folder: Path) -> None:
        """Install an empty package that says it has these: what isn't to be had as an RPM here."""
        lines = "".join(f"Provides: {each}\n" for each in capabilities)
        folder.mkdir()
        spec = folder / "host.spec"
        spec.write_text(HOST.read_text(encoding="utf-8").replace("@PROVIDES@\n", lines), "utf-8")
        checked("rpmbuild", "--quiet", "-bb", "--define", f"_topdir {folder}", spec)
        self.rpm("--install", *folder.glob("RPMS/*/*.rpm"))

    def files(self) -> set[str]:
        """Return what lies in it, but for the database."""
        found = {str(each.relative_to(self.path)) for each in self.path.rglob("*")}
        return {each for each in found if not each.startswith(str(DATABASE))}

    def command(self, *command: str) -> list[str]:
        """Return a command that runs in this root, with the host's Python, libraries and kernel."""
        return [ENTER, str(self.path), self.python, *command]


def checked(*command: str | Path) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
