"""What a page must be: whole in itself, without scripts, and well formed."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "link", "input", "hr"}
FETCHING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


class Page(HTMLParser):
    """The tags with their attributes, the visible text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(path: Path) -> Page:
    """The page, which names nothing outside itself but in its text, runs nothing, and suits phones and printers."""
    page = Page(path.read_text())
    outside = [value for _, attributes in page.tags for name, value in attributes.items() if name in FETCHING]
    assert all(value is not None and value.startswith("data:image/png;base64,") for value in outside)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    styles = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    assert "@media print" in styles
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    return page
