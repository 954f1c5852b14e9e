"""Markdown that others wrote, such as a data set's card, as HTML that a page may hold."""

from __future__ import annotations

from markdown_it import MarkdownIt

BELOW = 2  # levels by which its headings go down: they stand in a section of the page
# HTML and links are shown as text, and pictures are left out: a page runs nothing and names nothing outside itself.
READER = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
READER.disable(["link", "autolink", "reference"])
READER.add_render_rule("image", lambda *_: "")


def as_html(text: str) -> str:
    """Its headings, lists and tables; whatever is written in them is escaped."""
    tokens = READER.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + BELOW, 6)}"
    return str(READER.renderer.render(tokens, READER.options, {}))
