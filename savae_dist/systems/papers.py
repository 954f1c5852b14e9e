"""What a system says of the paper that it comes from; ours do, those of others may."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable


@runtime_checkable
class Published(Protocol):
    """summary: what it is, in a few words. paper: author, year and equations. citation: the paper's BibTeX entry."""

    summary: ClassVar[str]
    paper: ClassVar[str]
    citation: ClassVar[str]


def citation_of(system: object) -> str:
    """The BibTeX entry of the paper that it comes from; empty if it names none."""
    return system.citation if isinstance(system, Published) else ""
