"""The table of a shard's samples: saved, counted by label, and known by its digest."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from savae_dist.files import write_bytes


def save_table(path: Path, table: np.ndarray) -> None:
    """Replace the file and never write into it: another process may read it."""
    content = io.BytesIO()
    np.save(content, table)
    write_bytes(path, content.getvalue())


def digest_of(samples: np.ndarray, blocks: np.ndarray) -> str:
    return hashlib.sha256(samples.tobytes() + blocks.tobytes()).hexdigest()


def count_labels(samples: np.ndarray) -> dict[str, int]:
    labels, counts = np.unique(samples["label"], return_counts=True)
    return {str(label): n for label, n in zip(labels.tolist(), counts.tolist(), strict=True)}
