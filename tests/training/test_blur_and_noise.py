"""Blur and noise of images, against their closed forms."""

from __future__ import annotations

import pytest
import torch

from savae_dist.training import augment


@pytest.mark.parametrize("deviation", [0.7, 2.0])
def test_a_point_becomes_a_gaussian_of_its_deviation(deviation: float) -> None:
    x = torch.zeros(1, 2, 25, 31, dtype=torch.float64)
    x[:, :, 12, 15] = 1
    y = augment.blur(x, torch.ones(1, dtype=torch.float64), deviation / 31)
    rows, columns = torch.arange(25.0)[:, None] - 12, torch.arange(31.0) - 15
    expected = torch.exp(-(rows**2 + columns**2) / (2 * deviation**2)).double()
    assert torch.allclose(y[0], (expected / expected.sum()).expand(2, 25, 31), atol=1e-3)
    found = (y[0, 0].sum(0) * columns**2).sum().item()
    assert found == pytest.approx(deviation**2, rel=0.02)


def test_each_image_has_its_own_blur_and_a_flat_one_stays_flat_to_its_edges() -> None:
    x = torch.rand(3, 1, 16, 12, generator=torch.Generator().manual_seed(0))
    y = augment.blur(x, torch.tensor([0.0, 0.3, 1.0]), 0.2)
    assert torch.equal(y[0], x[0])
    rough = (y.diff(dim=2) ** 2).mean((1, 2, 3))
    assert rough[0] > 2 * rough[1] > 4 * rough[2]
    flat = torch.full((3, 1, 16, 12), 0.37)
    torch.testing.assert_close(augment.blur(flat, torch.tensor([0.1, 0.5, 1.0]), 0.9), flat)


def test_noise_has_a_deviation_drawn_up_to_its_strength() -> None:
    n, generator = 400, torch.Generator().manual_seed(1)
    x, normal = torch.full((n, 1, 20, 20), 0.5), torch.randn(n, 401, generator=generator)
    level = (augment.noise(x, normal, 0.1) - x).flatten(1).std(1)
    torch.testing.assert_close(level, 0.1 * torch.special.ndtr(normal[:, 0]), rtol=0.15, atol=1e-3)
    assert level.min() < 0.005
    assert 0.095 < level.max() < 0.11


def test_noisy_pixels_stay_pixels() -> None:
    x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    normal = torch.randn(50, 193, generator=torch.Generator().manual_seed(3))
    y = augment.noise(x, normal, 0.9)
    level = 0.9 * torch.special.ndtr(normal[:, 0])[:, None, None, None]
    assert torch.equal(y, (x + level * normal[:, 1:].reshape(50, 3, 8, 8)).clamp(0, 1))
    assert (y == 0).any()
    assert (y == 1).any()
