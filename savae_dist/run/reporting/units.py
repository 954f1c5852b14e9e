"""Numbers as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
