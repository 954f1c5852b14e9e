"""The names under which a profiler shows what the engine does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch._C._autograd import _profiler_enabled


def in_profile(update: str) -> AbstractContextManager[object]:
    """The steps of an update in a profile; nothing while no profiler records."""
    return torch.profiler.record_function(f"update: {update}") if _profiler_enabled() else nullcontext()
