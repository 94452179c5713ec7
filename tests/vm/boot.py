# SPDX-License-Identifier: BSD-2-Clause
"""Boot a kernel by virtme-ng, with this host's files, and run a script in it.

Without KVM it is emulated in software: a guest is 10 to 50 times slower than its host.
"""

from __future__ import annotations

import compileall
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from apt import BUILD, ROOT, run
from pwru import TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels import Unpacked

VIRTME_NG = "virtme-ng==1.42"
VENV = BUILD / "venv"
PROGRAMS = BUILD / "bin"
SHARED = BUILD / "shared"  # the one folder that guests write to
IN_GUEST = Path("/tmp/cgnet-shared")  # and where they see it: /tmp is a guest's own
COPIED = ("bench", "bpf", "src", "tests")  # of this tree
MODULES = Path("/lib/modules")
# Where the daemon of virtiofs is that vng knows how to call (Rust's), and QEMU's own, until 8.0.
DAEMONS = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"))
OLD_DAEMON = Path("/usr/lib/qemu/virtiofsd")
PATIENCE_S = 1800


def prepare() -> None:
    """Install virtme-ng in an environment of its own."""
    SHARED.mkdir(parents=True, exist_ok=True)
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    if not (VENV / "bin/vng").exists():
        run(sys.executable, "-m", "venv", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", VIRTME_NG)
    wrapper = PROGRAMS / "virtiofsd"
    wrapper.unlink(missing_ok=True)
    if OLD_DAEMON.exists() and not any(each.exists() for each in DAEMONS):
        script = Path(__file__).with_name("virtiofsd.py")
        wrapper.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n'
        )
        wrapper.chmod(0o755)


@functools.cache
def kvm_works() -> bool:
    """Tell whether QEMU can make a machine by KVM; within a virtual machine it may be there in vain."""
    machine = ("-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none", "-S")
    done = subprocess.run(
        ["qemu-system-x86_64", *machine, "-monitor", "stdio"],
        input=b"quit\n", capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


@contextmanager
def linked_modules(kernel: Unpacked) -> Iterator[None]:
    """Have a kernel's modules where vng looks for them, for as long as it runs."""
    link = MODULES / kernel.release
    with ExitStack() as back:
        if not MODULES.exists():
            MODULES.mkdir()
            back.callback(_remove_if_empty, MODULES)
        if not link.exists():
            link.unlink(missing_ok=True)  # a link that leads nowhere
            link.symlink_to(kernel.modules)
            back.callback(link.unlink, missing_ok=True)
        yield


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def copied_tree(modules: Path) -> Iterator[Path]:
    """Copy what guests run: it may change here while one runs. They can't keep bytecode themselves.

    The copy hides this tree in guests: what else they need of it is put on top, also ``modules``.
    """
    with TemporaryDirectory(dir=BUILD) as folder:
        tree = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for place in (ROOT / ".venv", modules):
            (tree / place.relative_to(ROOT)).mkdir(parents=True)
        if TOOLS.exists():
            shutil.copytree(TOOLS, tree / TOOLS.relative_to(ROOT))
        compileall.compile_dir(tree / "src", quiet=1, stripdir=tree, prependdir=ROOT)
        yield tree


def boot(
    kernel: Unpacked, command: list[str], log: Path, *, patience_s: float = PATIENCE_S
) -> bool:
    """Run a command in a guest, as root; tell whether the guest ended by itself.

    The guest's files are the host's, read-only, but for SHARED. What it prints goes to ``log``.
    """
    with copied_tree(kernel.modules) as tree, linked_modules(kernel):
        return _boot(kernel, command, log, tree, patience_s)


def _boot(kernel: Unpacked, command: list[str], log: Path, tree: Path, patience_s: float) -> bool:
    environment, modules = ROOT / ".venv", kernel.modules
    words = [
        VENV / "bin/vng", "--run", kernel.image, "--disable-microvm", "--force-initramfs",
        "--memory", "2G", "--cpus", "2",
        f"--rodir={ROOT}={tree}", f"--rodir={environment}={environment}",
        f"--rodir={modules}={modules}",
        f"--rwdir={IN_GUEST}={SHARED}",
        "--exec", shlex.join(command),
    ]  # fmt: skip
    if not kvm_works():
        words.append("--disable-kvm")
    variables = {**os.environ, "PATH": f"{PROGRAMS}:{VENV / 'bin'}:{os.environ['PATH']}"}
    with log.open("wb") as output:
        # A pipe, and no file: vng opens a file again, and overwrites what is in it.
        guest = subprocess.Popen(
            list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=variables, start_new_session=True,
        )  # fmt: skip
        writer = subprocess.Popen(["cat"], stdin=guest.stdout, stdout=output)
        try:
            guest.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if guest.stdout:
                guest.stdout.close()
            _end(guest)
            writer.wait()
    return guest.returncode == 0


def _end(guest: subprocess.Popen[bytes]) -> None:
    """End a guest and its helpers, which are in a session of their own."""
    try:
        os.killpg(guest.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        guest.wait()
