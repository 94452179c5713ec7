# SPDX-License-Identifier: BSD-2-Clause
"""The RPMs, each in a root of its own with EL paths: installed, run, upgraded, removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from capturing import assert_sees_a_connection
from elroot import ElRoot, checked

from cgnet import __version__
from cgnet.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
C_LIBRARY = tuple(
    f"libc.so.6({version})(64bit)" if version else "libc.so.6()(64bit)"
    for version in (
        "", "GLIBC_2.2.5", "GLIBC_2.3", "GLIBC_2.3.2", "GLIBC_2.3.4", "GLIBC_2.4", "GLIBC_2.7",
        "GLIBC_2.9", "GLIBC_2.14", "GLIBC_2.17", "GLIBC_2.22", "GLIBC_2.28",
    )
)  # fmt: skip
# What is waived, because it is no RPM here: the host has it, and binds it in. Of glibc no version
# after that of the distribution. Anything else that a package requires makes its installation fail.
WAIVED = {
    "oc9": (
        "/usr/bin/python3", "python3 = 3.11", "python3-click = 8.1", "python3-rich = 13",
        "libbpf.so.1()(64bit)",
    ),
    "oc8": (
        "/usr/bin/python3.11", "python3.11 = 3.11", "rtld(GNU_HASH)", *C_LIBRARY,
        "ld-linux-x86-64.so.2()(64bit)", "ld-linux-x86-64.so.2(GLIBC_2.3)(64bit)",
    ),
}  # fmt: skip
PYTHON = {"oc9": "/usr/bin/python3", "oc8": "/usr/bin/python3.11"}


def package(distribution: str) -> Path:
    """Return the binary package of a distribution."""
    (found,) = (ROOT / "build/dist/rpm" / distribution).glob(f"*.{os.uname().machine}.rpm")
    return found


@pytest.fixture(scope="module", params=sorted(WAIVED))
def distribution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty(distribution: str, tmp_path: Path) -> ElRoot:
    """Return a root with what the host stands in for, and no more."""
    root = ElRoot(tmp_path / "root", PYTHON[distribution])
    root.path.mkdir()
    root.rpm("--initdb")
    root.provide(WAIVED[distribution], tmp_path / "host")
    return root


@pytest.fixture
def installed(empty: ElRoot, distribution: str) -> ElRoot:
    empty.rpm("--install", package(distribution))
    return empty


@pytest.fixture(scope="module")
def newer(distribution: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the package's next release."""
    folder = tmp_path_factory.mktemp("newer")
    checked(ROOT / "tools/build_rpm.sh", f".{distribution}", folder, "2")
    (found,) = folder.glob(f"*-2.{distribution}.{os.uname().machine}.rpm")
    yield found
    shutil.rmtree(folder)


def test_it_says_its_version(installed: ElRoot) -> None:
    shown = checked(*installed.command("/usr/bin/cgnet", "--version"))
    assert shown.startswith(f"cgnet {__version__} (libbpf ")


def test_it_sees_a_connection(installed: ElRoot) -> None:
    assert_sees_a_connection(installed.command("/usr/bin/cgnet"))


def test_its_objects_are_those_of_the_tree_with_their_btf(installed: ElRoot) -> None:
    folder = installed.path / "usr/lib64/cgnet/cgnet/_bpf"
    built = {each.name: each.read_bytes() for each in (ROOT / "src/cgnet/_bpf").glob("*.bpf.o")}
    assert {each.name: each.read_bytes() for each in folder.glob("*.bpf.o")} == built


def test_nothing_of_the_build_is_named_in_it(installed: ElRoot) -> None:
    found = subprocess.run(
        ["grep", "-rlE", "/BUILD(ROOT)?/|/tmp/|rpmbuild", installed.path / "usr/lib64/cgnet/cgnet"],
        capture_output=True,
        text=True,
    ).stdout.split()
    assert [each for each in found if each.endswith((".pyc", ".o", ".so.1"))] == []


def test_the_manual_is_there_for_every_command(installed: ElRoot) -> None:
    pages = {each.name.split(".")[0] for each in installed.path.glob("usr/share/man/man8/*.8*")}
    assert pages == {"cgnet", *(f"cgnet-{each}" for each in COMMANDS)}
    assert list(installed.path.glob("usr/share/man/zh_CN/man8/cgnet.8*"))


def test_only_root_can_write_what_it_installs(installed: ElRoot) -> None:
    wrong = [
        line
        for line in installed.rpm(
            "-q", "--queryformat", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\\n]", "cgnet"
        ).splitlines()
        if line[5] == "w" or line[8] == "w" or line.split()[1] != "root"
    ]
    assert wrong == []


def test_it_verifies(installed: ElRoot) -> None:
    assert installed.rpm("--verify", "--nodeps", "cgnet") == ""


def test_an_upgrade_leaves_the_new_one_and_it_runs(installed: ElRoot, newer: Path) -> None:
    before = installed.files()
    installed.rpm("--upgrade", newer)
    assert installed.rpm("-q", "--queryformat", "%{RELEASE}", "cgnet").startswith("2.")
    assert installed.files() == before
    assert checked(*installed.command("/usr/bin/cgnet", "--version"))


def test_a_removal_leaves_nothing(empty: ElRoot, distribution: str) -> None:
    empty.rpm("--install", package(distribution))
    empty.rpm("--erase", "cgnet")
    left = {each for each in empty.files() if not (empty.path / each).is_dir()}
    assert left == set()
    assert not [each for each in empty.files() if "cgnet" in each]


def test_without_what_it_requires_it_isnt_installed(distribution: str, tmp_path: Path) -> None:
    root = ElRoot(tmp_path / "root", PYTHON[distribution])
    root.path.mkdir()
    root.rpm("--initdb")
    with pytest.raises(AssertionError, match="Failed dependencies"):
        root.rpm("--install", package(distribution))


def test_the_changelog_has_what_opencloudos_asks_for(distribution: str) -> None:
    shown = checked("rpm", "-qp", "--changelog", package(distribution)).splitlines()
    assert shown[0].endswith(f"- {__version__}-1")
    assert shown[1].split("] ")[0] == "- [Type"
    assert shown[1].split("] ")[1] in {"bugfix", "security", "other"}
    assert shown[2].startswith("- [DESC] ")
