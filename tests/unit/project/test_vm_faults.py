# SPDX-License-Identifier: BSD-2-Clause
"""The faults in guests: what they run, and what is told of kernels that lack something."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from fault_guests import LACKS, lacks_of, write_script

from cgnet.findings.sentences import SENTENCES

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_kernel_lacks_is_told_with_the_ids() -> None:
    assert [line.partition(" before")[0] for line in lacks_of("5.10.0-46-cloud-amd64")] == [
        "no reasons of drops", "no reasons of resets",
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in lacks_of("6.1.0-56")] == [
        "no reasons of resets before 6.10"
    ]
    assert lacks_of("6.18.0") == []


def test_the_ids_are_those_of_findings() -> None:
    ids = {key.partition("/")[0] for key in SENTENCES}
    assert {each for lack in LACKS for each in lack.ids} <= ids


def test_options_come_to_the_trials_as_they_were_given(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    write_script(script, ["--only", "a b"], tmp_path / "results")
    assert "--only 'a b'" in script.read_text()
    subprocess.run(["sh", "-n", script], check=True)
