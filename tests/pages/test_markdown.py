"""Markdown of others: read as such, and unable to run, lead or fetch anything."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers.html_pages import Page

from savae_dist.data import Shards, pack
from savae_dist.data.card import card
from savae_dist.pages.markdown import as_html

CARD = {"h3", "h4", "p", "ul", "li", "code", "table", "thead", "tbody", "tr", "th", "td"}


def test_a_data_sets_card_has_headings_lists_and_tables(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "a|b", "[x](http://y)"]
    pack(np.zeros((3, 8, 8), np.uint8), np.arange(3), tmp_path / "set", class_names=names)
    page = Page(as_html(card(Shards.open(tmp_path / "set"), {"passed over": "`rm`\n# title"}, ["make_shards", "x"])))
    assert {tag for tag, _ in page.tags} == CARD
    for words in ("0 <script>alert(1)</script> 1 33.3%", "1 a|b 1", "2 [x](http://y) 1", "passed over: `rm`"):
        assert words in page.text
    assert not [sign for sign in ("##", "| ---", "preview.png") if sign in page.text]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "a <b onclick=x>b</b> <!-- c --> <![CDATA[d]]>",
        "[a](javascript:alert(1)) [b](http://c) <http://d> [e]\n\n[e]: http://f",
        '![a](http://b/c.png "d") ![e](data:image/png;base64,AAAA)',
        '```x"><script>\n</script>\n```',
        "| a |\n| - |\n| <script> |",
        "&lt;script&gt; &#60;script>",
    ],
)
def test_nothing_of_it_is_acted_on(text: str) -> None:
    page = Page(as_html(text))
    assert {tag for tag, _ in page.tags} <= CARD | {"pre"}
    assert {name for _, attributes in page.tags for name in attributes} <= {"class"}


@pytest.mark.parametrize("text", [">", "[", "![[", "*a ", "<", "`a", "- ", "\\", "|a\n|-\n"])
def test_hostile_text_takes_no_long_time(text: str) -> None:
    start = time.process_time()  # others may use the processor, too
    as_html(text * (20_000 // len(text)))
    assert time.process_time() - start < 10  # some tenths of a second
