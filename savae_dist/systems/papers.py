"""What a system says of the paper that it comes from; ours do, those of others may."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable


@runtime_checkable
class Cited(Protocol):
    """citation: the BibTeX entry that model cards of its networks print."""

    citation: ClassVar[str]


@runtime_checkable
class Published(Cited, Protocol):
    """summary: what it is, in a few words. paper: author, year and equations."""

    summary: ClassVar[str]
    paper: ClassVar[str]


def citation_of(system: object) -> str:
    """The BibTeX entry of the paper that it comes from; empty if it names none."""
    return system.citation if isinstance(system, Cited) else ""
