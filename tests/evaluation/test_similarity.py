"""PSNR in closed form; SSIM against Wang's formula written with scipy's Gaussian filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from savae_dist.evaluation.similarity import psnr, ssim


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Of single-channel images, in the form that scikit-image has it (gaussian_weights, population covariance)."""

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, truncate=3.5)  # reaches 5 pixels

    m, n = mean(a), mean(b)
    va, vb, cov = mean(a * a) - m * m, mean(b * b) - n * n, mean(a * b) - m * n
    c1, c2 = 0.01**2, 0.03**2
    s = (2 * m * n + c1) * (2 * cov + c2) / ((m * m + n * n + c1) * (va + vb + c2))
    return float(s[5:-5, 5:-5].mean())


@pytest.mark.parametrize("size", [(28, 28), (17, 40), (11, 11)])
def test_ssim_is_that_of_an_independent_computation(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a = rng.random((3, 2, *size))
    b = np.clip(a + rng.normal(scale=0.2, size=a.shape), 0, 1)
    expected = [np.mean([reference_ssim(p, q) for p, q in zip(*pair, strict=True)]) for pair in zip(a, b, strict=True)]
    found = ssim(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_equal_images_have_an_ssim_of_one_and_opposite_ones_below_zero() -> None:
    x = torch.rand(4, 1, 20, 20)
    torch.testing.assert_close(ssim(x, x), torch.ones(4, dtype=torch.float64))
    assert (ssim(x, 1 - x) < 0).all()


def test_flat_images_in_closed_form() -> None:
    """Without structure only the luminance term is left (Wang 2004, equation 6)."""
    a, b = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_images_smaller_than_the_window() -> None:
    """Of 8x8 the window is the central 7x7; it is a mean with these weights at the four places where it fits."""
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert ssim(x[:1], x[1:]).item() < 0.9
    assert ssim(torch.rand(1, 1, 1, 5), torch.rand(1, 1, 1, 5)).isfinite().all()


def test_psnr_in_closed_form() -> None:
    x = torch.rand(3, 1, 9, 8)
    assert psnr(x, x + 0.1).tolist() == pytest.approx([20.0] * 3, rel=1e-4)
    error = torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    assert psnr(x, x + error).tolist() == pytest.approx([20, 40, 100], rel=1e-4)
