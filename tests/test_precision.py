"""What is said of a precision before training."""

from __future__ import annotations

import pytest
import torch

from savae_dist.precision import slower_here

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "warned"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, False),
    ],
)
def test_emulated_bf16_is_told(capabilities: dict[str, object], warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bool(slower_here("bf16", CPU)) == warned
    assert not slower_here("fp32", CPU)
    assert not slower_here("bf16", torch.device("cuda"))


def test_torch_names_the_instructions_so() -> None:
    """On x86 both names are there, true or false; on ARM `bf16`."""
    known = torch.cpu.get_capabilities()
    assert {"avx512_bf16", "amx_bf16"} <= set(known) if known["architecture"] == "x86_64" else "bf16" in known
