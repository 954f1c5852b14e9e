"""What torch's exporters say in every export, and which tells a user nothing: left out, and nothing else."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = "torch.onnx._internal.exporter._registration"
SAID = "torchvision is not installed. Skipping"  # nothing here has its operators
WARNED = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),  # torch's own call of its own function
    (r"No complete tensor found in the group!", UserWarning),  # it is about weights that are not on the CPU
)


@contextmanager
def without_known_messages() -> Iterator[None]:
    """Within it these messages are not shown; all others are."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(SAID)

    logger = logging.getLogger(LOGGER)
    logger.addFilter(other)
    try:
        with warnings.catch_warnings():
            for message, category in WARNED:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        logger.removeFilter(other)
