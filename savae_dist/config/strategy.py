"""How updates are spread over the processes; the launch file decides it."""

from __future__ import annotations

from typing import Literal

# Whole replicas (one process, or DDP), DeepSpeed's ZeRO-1 and 2, and weights that are cut up too.
Strategy = Literal["ddp", "zero1", "zero2", "fsdp"]

SHOWN: dict[Strategy, str] = {"zero1": "ZeRO-1", "zero2": "ZeRO-2", "fsdp": "FSDP"}  # as the start tells it
