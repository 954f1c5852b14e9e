"""Sizes, patterns and files that ask for too much end at once, and the bound is named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from braceexpand import braceexpand

from savae_dist.config import names
from savae_dist.config.braces import MAX_FILES, at_most, expand_braces
from savae_dist.config.schema import LIMITS
from savae_dist.config.yaml_bounds import MAX_VALUES, check_bounds
from savae_dist.errors import ConfigError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize("key", LIMITS)
def test_a_size_beyond_its_limit_is_refused(key: str) -> None:
    asked = (
        ["system.name=aae_unsupervised"] if key in ("system.clusters", "system.prior_modes") else ["system.name=savae"]
    )
    names.check([*asked, f"{key}={LIMITS[key]}"])
    for value in ("1000000000", "1_000_000_000", "9" * 300, "'1000000000'"):
        with pytest.raises(ConfigError, match=rf"^{key} must be at most {LIMITS[key]:,}, not "):
            names.check([*asked, f"{key}={value}"])


def test_torch_is_not_loaded_to_refuse_a_size() -> None:
    program = "import sys; from savae_dist.train import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for argument, words in (
        ("networks.width=1000000000", "at most 4,096"),
        ("data.train=x{0..999999999}", "1,000,000"),
    ):
        done = subprocess.run([sys.executable, "-c", program, argument], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["2", "False"]
        assert words in done.stderr


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "{a,b}", "{0..9}", "{a..c}x{1,2}", "{a,{b,c}}", "x{a}", "{00..10..5}", "{a,b{1..3}}{x,y}", r"\{a,b\}"),
        *("{5..1}", "{,x}", "{A..z}", "x{{1..3},{a,b}y}z", "{1..3..0}", "{-2..2}", "", "a,b", "{1..2}..{3..4}"),
    ],
)
def test_a_pattern_is_counted_as_it_is_expanded(pattern: str) -> None:
    assert at_most(pattern) == len(list(braceexpand(pattern))) == len(expand_braces(pattern))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{a,b}" * 40, "more than 1,000,000 files"),
        ("{0..999999999}", "more than 1,000,000 files"),
        ("{0.." + "9" * 5000 + "}", "more than 1,000,000 files"),
        ("{0..9}" * 9, "more than 1,000,000 files"),
        ("{a," * 1000 + "b" + "}" * 1000, "more than 32 braces in each other"),
        ("{a,b}x" * 5000, "more than 10,000 characters"),
        ("{a,b" * 20, "unbalanced"),
    ],
)
def test_a_pattern_of_too_many_files_is_refused(pattern: str, words: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=words) as caught:
        expand_braces(pattern)
    assert time.perf_counter() - start < 1
    assert len(str(caught.value)) < 250
    assert len(expand_braces("{0..9}{0..99999}")) == MAX_FILES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: " + "[" * 100_000 + "]" * 100_000, "nested deeper than 32"),
        ("".join(" " * n + "a:\n" for n in range(40)), "nested deeper than 32"),
        (LAUGHS, f"more than {MAX_VALUES:,} values, its aliases unfolded"),
        ("a: &a [*a]", f"more than {MAX_VALUES:,} values"),
        ("a: 1\n" * 1_000_000, "more than 4,194,304 bytes"),
        ("optimizers: {default: {lr: 1" + "0" * 400 + "}}", "holds a number of more than 300 digits"),
        ("a: \x00", "cannot be read as YAML"),
        ('"\\e[31m": 1', r"^\\x1b\[31m: no such key"),
    ],
)
def test_a_file_that_unfolds_without_end_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(content)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=words):
        names.check([str(tmp_path / "x.yaml")])
    assert time.perf_counter() - start < 5


def test_aliases_may_be_used(tmp_path: Path) -> None:
    check_bounds("a: &a {lr: 1}\nb: *a\nc: {<<: *a}\n", "x")
    (tmp_path / "x.yaml").write_text("optimizers:\n  encoder: &a {lr: 0.1}\n  decoder: *a\nsystem: {name: vae}\n")
    names.check([str(tmp_path / "x.yaml")])


def test_a_nested_value_of_the_command_line_is_refused() -> None:
    for argument in ("data.train=" + "[" * 100_000, "a." * 100 + "b=1"):
        with pytest.raises(ConfigError, match="nested deeper than 32"):
            names.check([argument])
