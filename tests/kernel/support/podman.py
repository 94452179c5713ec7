# SPDX-License-Identifier: BSD-2-Clause
"""Real containers of podman and containerd, with a static busybox only."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import PATIENCE_S, need, unique, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLETS = ("sh", "sleep", "true")
SLEEP = ("/bin/sleep", "3600")
# crun refuses hybrid cgroups; cgroupfs needs no systemd; limits can't be raised in a container.
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "{runc}"
[engine.runtimes]
runc = ["{runc}"]
"""
CONTAINERD = Path("/run/containerd/containerd.sock")
CONTAINERD_STATE = (Path("/run/containerd"), Path("/var/lib/containerd"))


def busybox() -> Path:
    """Return a static busybox: a dynamic one doesn't run without its libraries."""
    found = Path(need("busybox"))
    assert b"/ld-linux" not in found.read_bytes()[:4096], f"{found} isn't static"
    return found


def root_archive() -> bytes:
    """Return a tar archive of a root file system with only busybox."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.add(busybox(), "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for folder in ("proc", "sys", "dev", "etc", "tmp", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
    return raw.getvalue()


class Podman:
    """Root's podman, with its usual state; everything it created is removed at the end."""

    def __init__(self, settings: Path, netns: str = "") -> None:
        """``netns``: the namespace of its bridges, as in ip-netns(8); by default the host's."""
        enter = [need("nsenter"), f"--net=/run/netns/{netns}"] if netns else []
        self._command = [*enter, need("podman")]
        settings.write_text(SETTINGS.format(runc=need("runc")))
        self._environment = {"CONTAINERS_CONF": str(settings), "PATH": "/usr/sbin:/usr/bin:/bin"}
        self._made: list[tuple[str, ...]] = []
        self.image = f"localhost/{unique()}:1"
        self("import", "-", self.image, stdin=root_archive())
        self._made.append(("rmi", "--force", self.image))

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            env=self._environment,
        )
        assert done.returncode == 0, (arguments, done.stderr.decode(errors="replace"))
        return done.stdout.decode().strip()

    def service(self, socket: Path) -> subprocess.Popen[bytes]:
        """Start podman's API; the caller ends it."""
        command = [need("podman"), "system", "service", "--time=0", f"unix://{socket}"]
        process = subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)
        wait_until("podman's socket", socket.exists)
        return process

    def run(self, *options: str, name: str = "") -> str:
        """Start a container that sleeps; return its id."""
        name = name or unique()
        self._made.append(("rm", "--force", "--time=0", "--ignore", name))
        return self("run", "--detach", f"--name={name}", *options, self.image, *SLEEP)

    def pod(self) -> str:
        """Create a pod with a network of its own; return its name."""
        name = unique("pod")
        infra = (f"--infra-image={self.image}", f"--infra-command={' '.join(SLEEP)}")
        self("pod", "create", f"--name={name}", "--network=none", *infra)
        self._made.append(("pod", "rm", "--force", "--time=0", name))
        return name

    def network(self, *subnets: str) -> str:
        """Create a bridge's network; return its name."""
        name = unique("net")
        self("network", "create", *(f"--subnet={each}" for each in subnets), name)
        self._made.append(("network", "rm", "--force", name))
        return name

    def remove(self, name: str) -> None:
        self("rm", "--force", "--time=0", name)

    def inspect(self, name: str, template: str) -> str:
        return self("inspect", "--format", template, name)

    def close(self) -> None:
        errors = []
        for command in reversed(self._made):
            try:
                self(*command)
            except AssertionError as error:
                errors.append(error)
        assert not errors


@contextmanager
def containerd(folder: Path) -> Iterator[None]:
    """Use the host's containerd, or run one that leaves nothing behind."""
    if CONTAINERD.exists():
        yield
        return
    there = [place for place in CONTAINERD_STATE if place.exists()]
    settings = folder / "containerd.toml"
    settings.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    log = (folder / "containerd.log").open("wb")
    process = subprocess.Popen([need("containerd"), "-c", settings], stdout=log, stderr=log)
    try:
        wait_until("containerd", CONTAINERD.exists)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.close()
        for place in CONTAINERD_STATE:
            if place not in there:
                shutil.rmtree(place, ignore_errors=True)


def ctr(*arguments: Any) -> str:
    done = subprocess.run(
        [need("ctr"), *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def ctr_container(
    folder: Path, name: str, *options: str, namespace: str = "default"
) -> Iterator[int]:
    """Run a container of ctr that sleeps, from a folder; yield its PID."""

    def run(*arguments: Any) -> str:
        return ctr("--namespace", namespace, *arguments)

    def row() -> list[str]:
        return next(line.split() for line in run("task", "ls").splitlines() if name in line)

    folder.mkdir()
    subprocess.run([need("tar"), "-x", "-C", folder], input=root_archive(), check=True)
    run("run", "--detach", "--rootfs", *options, folder, name, *SLEEP)
    try:
        yield int(row()[1])
    finally:
        run("task", "kill", "--signal", "SIGKILL", name)
        wait_until("the end", lambda: row()[2] == "STOPPED")
        run("task", "rm", name)
        run("container", "rm", name)
        if namespace != "default":
            ctr("namespaces", "rm", namespace)
