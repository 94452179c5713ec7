# SPDX-License-Identifier: BSD-2-Clause
"""The sentences of findings: each is used, and its id is in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgnet.findings import rules
from cgnet.findings.causes import BY_FUNCTION, CAUSES, OF_CLASS
from cgnet.findings.sentences import DROPPED, DROPPED_FIXES, SENTENCES

RULES = "".join(path.read_text() for path in Path(rules.__file__).parent.glob("*.py"))
DOCS = Path("docs/why.md").read_text()


@pytest.mark.parametrize("key", [key for key in SENTENCES if key.partition("/")[2] not in DROPPED])
def test_a_rule_says_it(key: str) -> None:
    assert f'"{key}"' in RULES


@pytest.mark.parametrize("ident", sorted({key.partition("/")[0] for key in SENTENCES}))
def test_its_id_is_in_the_docs(ident: str) -> None:
    assert f"`{ident}`" in DOCS


def test_each_cause_of_a_drop_has_a_fix() -> None:
    causes = {*CAUSES.values(), *OF_CLASS.values(), *BY_FUNCTION.values()}
    assert causes | {"time-wait-refused", "conntrack-full", "firewall-reject"} == set(DROPPED_FIXES)
