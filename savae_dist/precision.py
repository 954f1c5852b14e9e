"""Arithmetic of the forward pass; weights, losses, norms and optimiser states are float32 throughout."""

from __future__ import annotations

import torch

from savae_dist.config.schema import Precision

# Precision -> what to use on a CPU, where nothing is gained by it.
NEEDS_GPU = {"fp16": "bf16", "tf32": "fp32"}
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


# What CPUs with instructions for bf16 have one of, as `torch.cpu.get_capabilities` names it: Intel and AMD, and ARM.
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def slower_here(precision: Precision, device: torch.device) -> str:
    """A warning where the CPU has no instructions for bf16, which is then several times slower than fp32; or ""."""
    if precision != "bf16" or device.type != "cpu" or any(map(torch.cpu.get_capabilities().get, BF16_INSTRUCTIONS)):
        return ""
    return "this CPU has no instructions for bf16 and emulates it, several times slower than precision=fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in half precision, if `precision` is one."""
    return torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST)


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    """The loss scaler of one optimiser; only fp16 needs one, because small gradients would become zero."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def set_tf32(precision: Precision) -> None:
    """Let GPUs round the factors of float32 products to 10 bits, or not; torch itself does so in convolutions alone."""
    mode = "tf32" if precision == "tf32" else "ieee"
    # The older switches first: torch.export reads them, and fails where they say other than the newer ones.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.fp32_precision = mode
    torch.backends.cudnn.conv.fp32_precision = mode  # type: ignore[attr-defined]
