# SPDX-License-Identifier: BSD-2-Clause
"""Say what a wheel holds, and fail if its tag promises what its library doesn't keep.

auditwheel looks at the versions of symbols, so it doesn't see one that no library has.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

OBJECTS = Path(__file__).parents[1] / "bpf"
WITHIN = "cgnet/_bpf"


def foreign_symbols(library: Path) -> list[str]:
    """Return the symbols that a library needs, and that the C library doesn't have.

    Those of the C library have a version; weak ones may be missing.
    """
    shown = subprocess.run(
        ["llvm-nm", "--dynamic", "--undefined-only", library],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = [line.split() for line in shown.splitlines()]
    return [name for kind, name in found if kind == "U" and "@GLIBC" not in name]


def check_library(wheel: Path) -> None:
    """Fail if the wheel's libbpf needs more than the C library."""
    with tempfile.TemporaryDirectory() as folder:
        library = zipfile.ZipFile(wheel).extract(f"{WITHIN}/libbpf.so.1", folder)
        if foreign := foreign_symbols(Path(library)):
            sys.exit(f"{wheel.name}: libbpf.so.1 lacks {', '.join(sorted(foreign))}")


def main(wheel: Path) -> None:
    """Compare what is in it with what it is called."""
    names = zipfile.ZipFile(wheel).namelist()
    objects = {each.name.partition(".")[0] for each in OBJECTS.glob("*.bpf.c")} - {"probe"}
    wanted = {f"{WITHIN}/{name}.raw.bpf.o" for name in objects}
    typed = {name for name in objects - {"sockets"} if not name.endswith("_functions")}
    wanted |= {f"{WITHIN}/{name}.typed.bpf.o" for name in typed}
    wanted |= {f"{WITHIN}/{name}" for name in ("probe.bpf.o", "libbpf.so.1", "licences/README.txt")}
    if missing := wanted - set(names):
        sys.exit(f"{wheel.name} lacks {', '.join(sorted(missing))}")
    check_library(wheel)
    tag = wheel.stem.split("-")[-1]
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # The text is wrapped: names are whole, blanks may be ends of lines.
    if f'platform tag: "{tag}"' not in " ".join(shown.split()):
        sys.exit(f"{wheel.name}: auditwheel doesn't confirm the tag:\n{shown}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(names)} files, {tag} confirmed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
