"""The buffers of networks kept as bytes, so that a step which does not count leaves them as they were."""

from __future__ import annotations

import torch
from torch import Tensor


def as_bytes(buffer: Tensor) -> Tensor:
    """The buffer's own memory, uint8 `[bytes]`: buffers of every type and shape then fit into one tensor."""
    return buffer.as_strided((buffer.numel(),), (1,)).view(torch.uint8)


def restore(buffers: list[Tensor], before: Tensor | None) -> None:
    """Write what `torch.cat(buffers)` was into the buffers, each `[bytes]`; None where there are none."""
    if before is not None:
        torch._foreach_copy_(buffers, before.split([len(buffer) for buffer in buffers]))
