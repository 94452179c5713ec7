# SPDX-License-Identifier: BSD-2-Clause
"""What hatchling does for a wheel: the BPF objects, libbpf, and a tag that says for which machines.

The wheel has a libbpf of its own, built with ziglang from the sources in build/sources, which an sdist
brings and `make sources` gets. With CGNET_SYSTEM_LIBBPF=1, as `make install` says it, it has none.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GLIBC = (2, 28)  # the oldest that the bundled library runs with: that of OpenCloudOS 8
COMPILER = "packaging/zig.txt"
BUNDLED = "packaging/BUNDLED.txt"
LICENCES = (
    "libbpf.LICENSE",
    "libelf.COPYING",
    "libelf.COPYING-GPLV2",
    "libelf.COPYING-LGPLV3",
    "zlib.LICENSE",
)


class BuildHook(BuildHookInterface[Any]):
    """Build what is missing, and put it in."""

    @property
    def bundles(self) -> bool:
        """Whether the wheel gets a libbpf of its own, and the sdist its sources."""
        return not os.environ.get("CGNET_SYSTEM_LIBBPF")

    def dependencies(self) -> list[str]:
        """Return what the build needs beside hatchling."""
        if not self.bundles or self.target_name != "wheel":
            return []
        lines = (Path(self.root) / COMPILER).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if not line.startswith("#")]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and say what the wheel is for. An sdist takes along what libbpf is built from."""
        if self.target_name == "sdist":
            if self.bundles:
                build_data["artifacts"].append("/build/sources/*.orig.tar.*")
            return
        if version == "editable":  # `make` builds the objects in the tree
            return
        root, machine = Path(self.root), platform.machine()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{machine}"
        arguments = ["bpf"]
        if self.bundles:
            target = f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
            zig = f"{sys.executable} -m ziglang cc -target {target}"
            self._run(root, "tools/build_libbpf.sh", "build/sources", "build/libbpf", CC=zig)
            arguments.append("LIBBPF_INCLUDE=build/libbpf/include")
            build_data["tag"] = f"py3-none-manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"
            self._put_in(root, build_data)
        self._run(root, "make", "--silent", *arguments)

    @staticmethod
    def _put_in(root: Path, build_data: dict[str, Any]) -> None:
        built, files = root / "build/libbpf", build_data["force_include"]
        files[str(built / "libbpf.so.1")] = "cgnet/_bpf/libbpf.so.1"
        files[str(root / BUNDLED)] = "cgnet/_bpf/licences/README.txt"
        for each in LICENCES:
            files[str(built / each)] = f"cgnet/_bpf/licences/{each}"

    @staticmethod
    def _run(root: Path, *command: str, **environment: str) -> None:
        subprocess.run(command, cwd=root, check=True, env={**os.environ, **environment})
