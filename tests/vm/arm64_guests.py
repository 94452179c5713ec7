# SPDX-License-Identifier: BSD-2-Clause
"""Boot Debian's arm64 kernels, and run the tests of commands in them: `make test-arm64`.

QEMU emulates the processor: nothing is learnt of weak memory order, or of pages that aren't 4 KB. What a
guest has is one initramfs: a Debian of packages that are unpacked only, this tree with its arm64
objects, and pure Python of this tree's environment. Nothing of arm64 runs on this host. The table is
printed, and written nowhere.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from apt import BUILD, MIRROR, ROOT, last_words, run
from boot import COPIED, PATIENCE_S
from kernels import KERNELS, ZBOOT, MissingKernelError, Unpacked, fetch
from subset import PARTS
from table import HEADER, lines_of, rows

OBJECTS = ROOT / "build/bpf/arm64"
DEBIAN = BUILD / "arm64/root.tar"
SUITE = "bookworm"  # its libbpf and Python are the oldest that cgnet takes
PACKAGES = "python3,libbpf1,iproute2,nftables,kmod,busybox-static,util-linux,mount"
PURE = (
    "_pytest", "click", "iniconfig", "markdown_it", "mdurl", "packaging", "pluggy", "py.py",
    "pygments", "pyroute2", "pytest", "rich",
)  # fmt: skip
RUN = ("5.10", "6.12")  # by default: the oldest, and one that has all
MEMORY = "2G"
MACHINE = (
    "qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on", "-accel", "tcg,thread=multi",
    "-smp", "2", "-m", MEMORY, "-nographic", "-no-reboot",
)  # fmt: skip
PLACE = "cgnet"  # of this tree in the guest
APPLETS = "applets"  # what the packages lack: busybox has it
LAST_LINES = 12  # of a guest that brought no results
BEGIN, END = "-- results: begin", "-- results: end"
INIT = f"""#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/{APPLETS} HOME=/root LANG=C.UTF-8
export PYTHONPATH=/{PLACE}/src:/{PLACE}/site PYTHONDONTWRITEBYTECODE=1
B=/bin/busybox
$B mkdir -p /proc /sys /dev /tmp /run /{APPLETS}
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B mkdir -p /dev/pts /dev/shm
$B mount -t devpts devpts /dev/pts
for at in /dev/shm /tmp /run; do $B mount -t tmpfs tmpfs $at; done
$B mount -t cgroup2 cgroup2 /sys/fs/cgroup
$B mount -t tracefs tracefs /sys/kernel/tracing
$B mount -t bpf bpf /sys/fs/bpf
$B ip link set lo up
$B --install -s /{APPLETS}
cd /{PLACE}
python3 tests/vm/guest.py v2 PART /tmp/results.json
$B dmesg -n 1
echo "{BEGIN}"
$B cat /tmp/results.json
echo
echo "{END}"
$B poweroff -f
"""
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
COMMAND = """#!/usr/bin/python3
import sys
from cgnet.cli import main
sys.exit(main())
"""


def fetch_debian() -> None:
    """Fetch the packages of a guest. Raises CalledProcessError."""
    if not DEBIAN.exists():
        DEBIAN.parent.mkdir(parents=True, exist_ok=True)
        part = DEBIAN.with_name("part.tar")
        run(
            "mmdebstrap", "--architectures=arm64", "--variant=extract", f"--include={PACKAGES}",
            SUITE, part, MIRROR,
        )  # fmt: skip
        part.rename(DEBIAN)


def plain(image: bytes) -> bytes:
    """Return an image that QEMU can boot: one that unpacks itself, as EFI starts it, is unpacked."""
    if image[4:8] == ZBOOT:
        start, size = struct.unpack_from("<II", image, 8)
        return gzip.decompress(image[start : start + size])
    return image


def make_root(root: Path, kernel: Unpacked, part: str) -> None:
    """Lay out a guest's files."""
    run("tar", "-C", root, "-xf", DEBIAN)
    modules = root / f"lib/modules/{kernel.release}"
    shutil.copytree(kernel.modules, modules, ignore=shutil.ignore_patterns("vmlinuz"))
    for name, text in ACCOUNTS.items():
        (root / "etc" / name).write_text(text)
    tree = root / PLACE
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in OBJECTS.glob("*.bpf.o"):
        shutil.copy(path, tree / "src/cgnet/_bpf")
    site = next((ROOT / ".venv/lib").glob("python3*/site-packages"))
    for name in PURE:
        put = shutil.copytree if (site / name).is_dir() else shutil.copy
        put(site / name, tree / "site" / name)
    shell = root / "bin/sh"
    if not shell.exists():
        shell.symlink_to("busybox")
    command = tree / ".venv/bin/cgnet"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    init = root / "init"
    init.write_text(INIT.replace("PART", part))
    for each in (command, init):
        each.chmod(0o755)


def pack(root: Path, initramfs: Path) -> None:
    """Put a guest's files into one archive, as the kernel unpacks it."""
    names = subprocess.run(["find", ".", "-print0"], cwd=root, check=True, capture_output=True)
    with initramfs.open("wb") as archive:
        subprocess.run(
            ["cpio", "--quiet", "--null", "-o", "-H", "newc"],
            cwd=root, check=True, input=names.stdout, stdout=archive,
        )  # fmt: skip


def boot(kernel: Unpacked, part: str, log: Path) -> None:
    """Run a guest until it ends, PATIENCE_S at most. What it prints goes to ``log``."""
    with TemporaryDirectory(dir=BUILD) as folder:
        root, initramfs, image = (Path(folder) / name for name in ("root", "initramfs", "image"))
        root.mkdir()
        make_root(root, kernel, part)
        pack(root, initramfs)
        shutil.rmtree(root)
        image.write_bytes(plain(kernel.image.read_bytes()))
        words = [
            *MACHINE, "-kernel", image, "-initrd", initramfs,
            "-append", "console=ttyAMA0 rdinit=/init loglevel=4 panic=-1",
        ]  # fmt: skip
        with (
            log.open("wb") as output,
            subprocess.Popen(
                list(map(str, words)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            ) as guest,
        ):
            try:
                guest.wait(PATIENCE_S)
            finally:
                guest.kill()


def ended_how(log: Path) -> str:
    """Return the end of what a guest printed, indented."""
    lines = log.read_text(errors="replace").replace("\r", "").splitlines()
    return "".join(f"\n  {line}" for line in lines[-LAST_LINES:])


def try_one(name: str, part: str) -> tuple[list[tuple[str, ...]], str]:
    """Run one guest; return its rows of the table, and what was wrong."""
    kernel = fetch(next(each for each in KERNELS if each.name == name), "arm64")
    log = BUILD / f"arm64/{name}-{part}.log"
    try:
        boot(kernel, part, log)
    except subprocess.TimeoutExpired:
        return [], f"arm64 {name}: not ended after {PATIENCE_S} s; see {log}{ended_how(log)}"
    text = log.read_text(errors="replace").replace("\r", "")
    results = text.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    if not results.strip():
        return [], f"arm64 {name}: no results; see {log}{ended_how(log)}"
    found = json.loads(results)
    log.with_suffix(".json").write_text(results)
    failed = [each["test"] for each in found["tests"] if each["outcome"] == "failed"]
    for each in failed:
        print(f"  failed: {each}")
    print(
        f"arm64 {found['release']}: {len(found['tests'])} tests, {len(failed)} failed", flush=True
    )
    if not found["tests"]:
        return [], f"arm64 {name}: no test ran; see {log}{ended_how(log)}"
    return rows(found), f"arm64 {name}: {len(failed)} failed; see {log}" if failed else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [kernel.name for kernel in KERNELS]
    parser.add_argument("--kernel", action="append", choices=names, help=f"{RUN} by default")
    parser.add_argument("--part", choices=PARTS, default=next(iter(PARTS)))
    given = parser.parse_args()
    told, wrong = [], []
    try:
        fetch_debian()
        for name in given.kernel or RUN:
            lines, failure = try_one(name, given.part)
            told += lines
            wrong += [failure] if failure else []
    except MissingKernelError as error:
        wrong.append(f"arm64: {error}")
    except subprocess.CalledProcessError as error:
        wrong.append(f"arm64: {error.cmd[0]}: {last_words(error)}")
    print(lines_of(HEADER, told))
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
