"""JSON of files that may be damaged or hostile."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from savae_dist import untrusted
from savae_dist.errors import DataError, printable
from savae_dist.untrusted import (
    Check,
    listed,
    nullable,
    number,
    one_of,
    path_text,
    read_object,
    record,
    table,
    text,
    whole,
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no JSON"),
        (b"[]", "it holds no JSON object"),
        (b'{"a": "\xff"}', "it is no JSON"),
        (b'{"a": 1, "a": 2}', "it names 'a' twice"),
        (b'{"a": ' + b"[" * 100_000, "it is nested deeper than 32"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "it is nested deeper than 32"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it is no JSON"),
        (b" " * 101, "it has more than 100 bytes"),
    ],
)
def test_what_is_no_object_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    size = 100 if content.isspace() else untrusted.SIZE
    with pytest.raises(DataError, match=rf"x\.json cannot be read: {words}.*; delete it$"):
        read_object(tmp_path / "x.json", DataError, "delete it", size)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="it is no regular file; delete it"):
            read_object(path, DataError, "delete it")
    with pytest.raises(DataError, match="No such file"):
        read_object(tmp_path / "absent", DataError, "delete it")


RULE = record({"n": whole(1, 9), "parts": listed(record({"x": number(0)}), most=2)}, {"names": table(text(3))})
GOOD: dict[str, Any] = {"n": 9, "parts": [{"x": 0}, {"x": 1.5}], "other": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 10}, "n is 10, not a whole number from 1 to 9"),
        ({"n": True}, "n is True, not a whole number"),
        ({"n": 2.0}, "n is 2.0, not a whole number"),
        ({"parts": [{"x": 1}, {"x": -1}]}, r"parts\[1\].x is -1, not a number from 0"),
        ({"parts": [{"x": math.nan}]}, r"parts\[0\].x is nan"),
        ({"parts": [{"x": 10**400}]}, r"parts\[0\].x is 1000.*0, not a number"),
        ({"parts": [{}]}, r"parts\[0\] has no x"),
        ({"parts": [GOOD] * 3}, "parts is a list of 3, not a list of 0 to 2"),
        ({"parts": "x" * 1000}, "parts is 'xxx.*xxx', not a list"),
        ({"names": {"a": "four"}}, r"names\['a'\] is 'four', not a text of at most 3"),
        ({"names": []}, r"names is \[\], not an object"),
    ],
)
def test_a_misfit_names_field_value_and_bound(change: dict[str, Any], words: str) -> None:
    untrusted.check(GOOD, RULE, "x.json", DataError, "delete it")
    with pytest.raises(DataError, match=rf"^x\.json: {words}.*; delete it$") as caught:
        untrusted.check({**GOOD, **change}, RULE, "x.json", DataError, "delete it")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (one_of(1, "a"), [1, "a"], [True, 1.0, "b", None, []]),
        (nullable(whole()), [None, 0], [-1, False]),
        (path_text, ["a/b.tar", "/é/x", "s3://b/k"], ["", "a\0b", "\ud800", "x" * 300, 3, "a/" * 900]),
        (text(8, "[a-f]+", "letters"), ["abc"], ["", "abg", "a\n", "١"]),
        (number(), [1, -2.5, 1e300], [math.inf, -math.inf, math.nan, True, "1"]),
    ],
)
def test_a_rule_takes_what_fits_and_nothing_else(rule: Check, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        rule(value)
    for value in bad:
        with pytest.raises(untrusted.Misfit):
            rule(value)


def test_what_is_told_is_one_printable_line() -> None:
    assert str(DataError("a \x1b[31mred\nline \u202e of \ud800 é")) == r"a \x1b[31mred\nline \u202e of \ud800 é"
    assert printable("é 1") == "é 1"
