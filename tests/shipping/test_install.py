# SPDX-License-Identifier: BSD-2-Clause
"""Each install line of the README, as it stands there, in fresh minimal roots: `make test-install`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cgnet import __version__

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ROOT / "build/roots"
FRESH = Path(__file__).with_name("fresh.sh")
PREPARE = "apt-get -qq update; apt-get -qq install --no-install-recommends -y git make >/dev/null"
SUITES = ("bookworm", "trixie")
# It sees a connection, and a user who never heard of virtual environments finds it.
TRY = """
cgnet --version
cgnet connect --dport 47811 --limit 1 --duration 60 -o json 2>/tmp/said >/tmp/seen &
until grep -q '^cgnet: tracing' /tmp/said; do kill -0 $!; sleep 0.1; done
python3 -c '
import socket
server = socket.create_server(("127.0.0.1", 47811))
socket.create_connection(server.getsockname())'
wait $!
grep '"result": *"ok"' /tmp/seen
"""


def blocks() -> list[str]:
    """Return the README's blocks of commands that install, without their prompts."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (part,) = (each for each in re.split(r"^## ", text, flags=re.MULTILINE) if "make wheel" in each)
    found = re.findall(r"^```console\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^# ", "", block, flags=re.MULTILINE) for block in found]


def block_with(text: str) -> str:
    (found,) = (block for block in blocks() if text in block)
    return found


@pytest.fixture(scope="session", params=SUITES)
def root(request: pytest.FixtureRequest) -> Path:
    """Return a minimal root, which is made once."""
    path = ROOTS / request.param
    if not (path / "etc/debian_version").exists():
        ROOTS.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mmdebstrap", "--variant=minbase", "--quiet", request.param, path], check=True
        )
    return path


def typed(root: Path, *lines: str, sources: Path | None = None) -> str:
    """Type lines in a fresh layer above a root; return what was shown."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    if sources:
        environment["SOURCES"] = str(sources)
    done = subprocess.run(
        [FRESH, root, ROOT, "\n".join([PREPARE, *lines])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_wheel(root: Path) -> None:
    shown = typed(root, block_with("make wheel"), TRY)
    assert f"cgnet {__version__} (libbpf " in shown


def test_the_installation_from_a_clone_and_its_end(root: Path) -> None:
    lines = block_with("make install")
    shown = typed(root, lines, TRY, "make uninstall", "! test -e /usr/local/bin/cgnet")
    assert f"cgnet {__version__} (libbpf " in shown


def test_the_packages_that_building_needs(root: Path) -> None:
    (line,) = (
        line for line in block_with("apt-get install").splitlines() if line.startswith("apt-get")
    )
    typed(root, f"{line} -y >/dev/null", "tools/deps.sh --check", "make bpf")


def test_the_rpm_for_opencloudos_9_is_built_without_bundled_sources(root: Path) -> None:
    line = block_with("make rpm-oc9").splitlines()[0]
    typed(root, line, "ls build/dist/rpm/oc9/cgnet-*.x86_64.rpm", "! ls build/sources")


def test_the_demo(root: Path) -> None:
    assert "ECONNREFUSED" in typed(root, "make demo")
