"""The decoder's low-pass: constants stay, sines become the same sines, and mirrored copies of them go."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from savae_dist.networks import ConvDecoder, Network
from savae_dist.networks.upsample import LowPassUpsample, doubling, kaiser_sinc
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SAVAE

N = 400  # elements of a sine


def sine(cycles: int, n: int = N) -> Tensor:
    return torch.sin(2 * math.pi * cycles * torch.arange(n, dtype=torch.float64) / n + 0.3).reshape(1, 1, n)


def decibels(upsample: str, cycles: int) -> tuple[float, float]:
    """(the sine, its mirrored copy), each relative to the amplitude of the sine before; far from the ends."""
    # Three times the sine, of which the middle one is looked at: the ends are repeated elements.
    made = doubling(upsample).double()(sine(3 * cycles, 3 * N))[0, 0, 2 * N : 4 * N]
    amplitude = torch.fft.rfft(made).abs() / N
    return tuple(20 * math.log10(amplitude[at].item()) for at in (cycles, N - cycles))


def test_the_filter_is_scipy_s() -> None:
    expected = scipy.signal.firwin(12, 0.5, window=("kaiser", 4.66))  # unit gain at zero; ours has 2, for the zeros
    np.testing.assert_allclose(kaiser_sinc(), 2 * expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 1), (2, 3, 7, 4), (1, 2, 1, 5)])
def test_a_constant_stays_constant_up_to_the_ends(shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 0.7)
    made = LowPassUpsample()(x)
    assert made.shape == (*shape[:2], *(2 * n for n in shape[2:]))
    torch.testing.assert_close(made, torch.full_like(made, 0.7))


def test_zeros_between_and_one_convolution_are_the_same() -> None:
    x = np.random.default_rng(0).normal(size=40)
    zeros = np.zeros(80)
    zeros[::2] = x
    found = LowPassUpsample().double()(torch.from_numpy(x)[None, None])[0, 0].numpy()
    expected = np.convolve(zeros, kaiser_sinc())[5:85]  # six taps before, six behind: half a new element early
    np.testing.assert_allclose(found[8:-8], expected[8:-8], atol=1e-7)  # the layer's taps are float32


def test_an_image_is_doubled_axis_by_axis() -> None:
    up, x = LowPassUpsample(), torch.randn(2, 3, 6, 5)
    rows = torch.stack([up(x[..., j]) for j in range(5)], 3)
    torch.testing.assert_close(up(x), torch.stack([up(rows[:, :, i]) for i in range(12)], 2))


@pytest.mark.parametrize("cycles", range(5, 81, 5))  # up to 0.4 of the old Nyquist frequency, N / 2 cycles
def test_the_copy_of_a_sine_is_52_decibels_below_it(cycles: int) -> None:
    kept, mirrored = decibels("anti_aliased", cycles)
    assert abs(kept) < 0.1
    assert mirrored - kept < -52
    # Repetition: cos(pi f / 2) of the sine, sin(pi f / 2) of its copy, f in units of the new sampling rate over 2.
    kept, mirrored = decibels("nearest", cycles)
    assert mirrored - kept == pytest.approx(20 * math.log10(math.tan(math.pi * cycles / (2 * N))), abs=1e-6)


def test_new_elements_lie_where_those_of_nearest_do() -> None:
    """A slow sine, doubled, is the sine at m - 1/4 and m + 1/4."""
    made = LowPassUpsample().double()(sine(8))[0, 0]
    places = torch.arange(2 * N, dtype=torch.float64) / 2 - 0.25
    expected = torch.sin(2 * math.pi * 8 * places / N + 0.3)
    assert (made - expected)[20:-20].abs().max() < 5e-3


@pytest.mark.parametrize("shape", [(2, 37), (1, 13, 10)])
def test_a_decoder_of_it(shape: tuple[int, ...], tmp_path: Path) -> None:
    """The weights are those of the decoder without it, which start the same; a folder gives it back."""
    made = []
    for upsample in ("nearest", "anti_aliased"):
        torch.manual_seed(0)
        made.append(ConvDecoder(shape, 3, width=4, norm_kind="group", upsample=upsample))
    (plain, smooth), z = made, torch.randn(5, 3)
    assert plain.state_dict().keys() == smooth.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), smooth.parameters(), strict=True))
    assert smooth(z).shape == plain(z).shape
    assert not torch.allclose(smooth(z), plain(z))
    smooth.save_pretrained(tmp_path)
    assert torch.equal(Network.from_pretrained(tmp_path)(z), smooth(z))


def test_without_pools_nothing_is_doubled() -> None:
    with pytest.raises(ValueError, match=r"system\.upsample=anti_aliased needs networks\.pools of 1 or more"):
        SAVAE(upsample="anti_aliased").build(DataSpec("signal", (1, 64), 4, "none"), 4, "batch", 0)
