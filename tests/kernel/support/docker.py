# SPDX-License-Identifier: BSD-2-Clause
"""A docker of the tests' own: with the usual paths, in a mount namespace that ends with it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness import PATIENCE_S, need, unique, wait_until
from podman import SLEEP, root_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "/run/docker/docker.sock"
# Paths that it must not share with a docker or a containerd of the host.
PLACES = ("/etc/docker", "/var/lib/docker", "/run/docker", "/run/containerd")
HIDDEN = 'for each in $PLACES; do mount -t tmpfs -o mode=711 none "$each"; done; exec "$@"'
# No systemd, no overlays on overlays, and no changes to the host's firewall and bridges.
SETTINGS = (
    f"--host=unix://{SOCKET}",
    "--pidfile=/run/docker/docker.pid",
    "--exec-opt=native.cgroupdriver=cgroupfs",
    "--storage-driver=vfs",
    "--iptables=false",
    "--ip6tables=false",
    "--bridge=none",
)


class Docker:
    """A running daemon and its client."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.image = f"{unique()}:1"

    def enter(self) -> tuple[str, ...]:
        """Return a command prefix that enters the daemon's mount namespace."""
        return (need("nsenter"), f"--mount=/proc/{self._process.pid}/ns/mnt")

    def runs(self) -> bool:
        """Return whether the daemon answers; the test fails if it has ended."""
        assert self._process.poll() is None, "dockerd ended"
        command = (*self.enter(), need("docker"), f"--host=unix://{SOCKET}", "version")
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode == 0

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [*self.enter(), need("docker"), f"--host=unix://{SOCKET}", *arguments],
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, (arguments, done.stderr.decode(errors="replace"))
        return done.stdout.decode().strip()

    @contextmanager
    def container(self, name: str, *options: str) -> Iterator[str]:
        """Run a container that sleeps; yield its id."""
        found = self("run", "--detach", f"--name={name}", *options, self.image, *SLEEP)
        try:
            yield found
        finally:
            self("rm", "--force", name)

    def pid(self, name: str) -> int:
        return int(self("inspect", "--format", "{{.State.Pid}}", name))


@contextmanager
def docker(folder: Path) -> Iterator[Docker]:
    """Run a dockerd with the tests' image; its log is in ``folder``."""
    made = [place for place in map(Path, PLACES) if not place.exists()]
    for place in made:
        place.mkdir()
    log = (folder / "dockerd.log").open("wb")
    process = subprocess.Popen(
        [need("unshare"), "--mount", "sh", "-c", HIDDEN, "sh", need("dockerd"), *SETTINGS],
        stdout=log,
        stderr=log,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PLACES": " ".join(PLACES)},
    )
    try:
        daemon = Docker(process)
        wait_until(lambda: (folder / "dockerd.log").read_text()[-2000:], daemon.runs)
        daemon("import", "-", daemon.image, stdin=root_archive())
        yield daemon
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.close()
        for place in made:
            place.rmdir()
