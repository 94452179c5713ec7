# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgnet.errors import UsageError
from cgnet.filters import cgroup
from cgnet.filters.cgroup import SELECTED, is_pattern, pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cgnet.filters.cgroup import CgroupFilter
    from cgnet.owners.cgroups import Hierarchy

MEMORY = 1  # the id of the first made-up hierarchy


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("/a*", "/a /ab /a*", "/ /b /a/b /ba"),
        ("/*", "/a /*", "/ /a/b"),
        ("/*/b", "/a/b", "/b /a/c/b"),
        ("/a?c", "/abc /a?c", "/ac /a/c /abbc"),
        ("/a[bc]d", "/abd /acd", "/ad /aed /a/d /abcd"),
        ("/a[!bc]d", "/aed /a!d", "/abd /acd /a/d /ad"),
        ("/a[^b]c", "/abc /a^c", "/adc"),
        ("/a[0-9]c", "/a5c /a0c", "/a-c /axc"),
        ("/a[+-9]c", "/a+c /a.c /a0c", "/a/c"),
        ("/a[a-]c", "/aac /a-c", "/abc"),
        ("/a[]x]c", "/a]c /axc", "/abc"),
        ("/a[!]x]c", "/abc", "/a]c /axc"),
        ("/a[z-a]c", "", "/azc /aac /amc /a[z-a]c"),
        ("/a[!z-a]c", "/azc /aac", "/a/c /ac"),
        ("/a[&&~~||x--]c", "/a&c /a~c /a|c", "/abc /axc /a-c"),
        ("/a[\\d]c", "/a\\c /adc", "/a1c"),
        ("/a[.]*", "/a. /a.b", "/ab"),
        ("/*[abc", "/[abc /x[abc", "/a /xa"),
        ("/[abc*", "/[abc /[abcd", "/a /b"),
        ("/*[]", "/[] /x[]", "/x"),
        ("/*[!]", "/[!] /x[!]", "/x /!"),
        ("/**", "/ /a /a/b /a/b/c", ""),
        ("/a/**", "/a /a/b /a/b/c", "/ /ab /b/a"),
        ("/**/b", "/b /a/b /a/a/b", "/ /ab /b/a"),
        ("/a/**/d*", "/a/d /a/b/d /a/b/c/dd", "/a /d /a/d/e"),
        ("/a**", "/a /abc", "/a/b"),
        ("/a*/", "/a /ab", "/a/b"),
        ("/dev\\x2d*", "/dev\\x2da", "/dev-a"),
        ("/a.b(c)+*", "/a.b(c)+", "/axb(c)+ /abc"),
        ("/a*b\nc", "/ab\nc /axb\nc", "/ab"),
    ],
)
def test_a_pattern_matches_names_and_only_two_stars_cross_a_slash(
    made: Callable[..., CgroupFilter], pattern: str, matching: str, others: str
) -> None:
    separator = " "
    filter_ = made(pattern)
    for paths, expected in ((matching, [1]), (others, [])):
        for path in filter(None, paths.split(separator)):
            assert [each.number for each in filter_._naming(MEMORY, path)] == expected, path
            assert filter_.has_patterns(MEMORY)


names = st.text("ab*?[]!-^\\.", min_size=1, max_size=7)


@given(names, st.text("ab*?[]!-^\\./", min_size=1, max_size=4))
@example("[!a]", "/")
@example("[--0]", "/")
@example("a[", "a[")
def test_within_a_name_a_pattern_is_what_fnmatch_makes_of_it(pattern: str, name: str) -> None:
    expected = "/" not in name and fnmatch.fnmatchcase(name, pattern)
    if pattern != "**":
        assert bool(pattern_of(f"/{pattern}").fullmatch(f"/{name}")) == expected


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (f"/a/{'*-' * 20}.scope", f"/a/{'-' * 250}"),
        (f"/a/{'*-?' * 20}x", f"/a/{'-' * 250}"),
        (f"/a/{'*[-]' * 20}x", f"/a/{'-' * 250}"),
        (f"/**/{'*a' * 20}", "/" + "/".join(["a" * 19 + "b" * 40] * 60)),
        (f"{'/**/a' * 20}/x", "/" + "/".join(["a"] * 400)),
        (f"{'/**/a*a' * 20}/x", "/" + "/".join(["aaa"] * 400)),
    ],
)
def test_a_name_that_is_made_for_it_takes_no_longer(pattern: str, path: str) -> None:
    """With backtracking these take seconds to ages."""
    begin = time.process_time()
    assert not pattern_of(pattern).fullmatch(path)
    assert time.process_time() - begin < 1


@st.composite
def patterns_and_paths(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    few = st.sampled_from(["a", "b", "ab", "aab", "*", "a*", "*b", "?", "*a*b", "**"])
    return (
        draw(st.lists(few, min_size=1, max_size=6)),
        draw(st.lists(st.text("ab", min_size=1, max_size=4), max_size=6)),
    )


def matches(pattern: list[str], names: list[str]) -> bool:
    """Say the same by trying everything."""
    if not pattern:
        return not names
    first, *rest = pattern
    if first == "**":
        return any(matches(rest, names[at:]) for at in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], first) and matches(rest, names[1:])


@given(patterns_and_paths())
def test_of_several_names_a_pattern_is_what_trying_everything_makes_of_it(
    both: tuple[list[str], list[str]],
) -> None:
    pattern, names = both
    path = "".join(f"/{name}" for name in names)
    assert bool(pattern_of("/" + "/".join(pattern)).fullmatch(path)) == matches(pattern, names)


@pytest.mark.parametrize(
    ("text", "expected"), [("/a*", True), ("/a?", True), ("/[a", True), ("/a.b{c}", False)]
)
def test_wildcards_make_a_pattern(text: str, *, expected: bool) -> None:
    assert is_pattern(text) == expected


@pytest.mark.parametrize("value", ["/nosuch", "!/nosuch", "relative", ""])
def test_a_path_that_is_not_there_is_refused(made: Callable[..., CgroupFilter], value: str) -> None:
    with pytest.raises(UsageError, match=r"no such cgroup; give a directory as mounted"):
        made(value)


def test_a_path_that_cannot_be_looked_at_is_refused_with_the_reason(
    made: Callable[..., CgroupFilter], tmp_path: Path
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for value, why in ((f"/{'a' * 300}", "File name too long"), (str(loop), "Too many levels")):
        with pytest.raises(UsageError, match=rf"no such cgroup \({why}.*\); give a directory"):
            made(value)


@pytest.mark.parametrize("value", ["a*", "!a*", "*"])
def test_a_pattern_begins_with_a_slash(made: Callable[..., CgroupFilter], value: str) -> None:
    with pytest.raises(UsageError, match=r"begin a pattern with /, as in /kubepods/\*$"):
        made(value)


def test_more_values_than_a_mark_can_tell_apart_are_refused(
    made: Callable[..., CgroupFilter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "MAX_GIVEN", 3)
    assert len(made(*["/a"] * 3).given) == 3
    with pytest.raises(UsageError, match="more than 3 in one run"):
        made(*["/a"] * 4)


@pytest.mark.parametrize("value", ["a", "a*"])
def test_a_path_as_mounted_is_one_of_that_hierarchy(
    made: Callable[..., CgroupFilter], mounted: list[Hierarchy], value: str
) -> None:
    filter_ = made(str(mounted[2].mount / value))
    assert filter_.hierarchies == [mounted[2]]
    assert filter_.mark(mounted[2].id, "/a").marks == SELECTED
    assert filter_.mark(MEMORY, "/a").marks == 0


def test_a_directory_whose_name_looks_like_a_pattern_is_itself(
    made: Callable[..., CgroupFilter], mounted: list[Hierarchy]
) -> None:
    (mounted[0].mount / "a[b]").mkdir()
    filter_ = made("/a[b]")
    assert not filter_.has_patterns(MEMORY)
    assert [filter_.mark(MEMORY, path).marks for path in ("/a[b]", "/ab")] == [SELECTED, 0]


def test_names_that_are_not_utf_8_are_spelled_as_in_records(
    made: Callable[..., CgroupFilter], mounted: list[Hierarchy]
) -> None:
    (mounted[0].mount / "x\udcff").mkdir()
    for value in ("/x\udcff", "/x\udcff*"):
        assert made(value).mark(MEMORY, "/x\\xff").marks == SELECTED
