"""How alike two images are: peak signal-to-noise ratio and structural similarity, of values in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # side and deviation of the Gaussian window, in pixels (Wang 2004, section III B)
C1, C2 = 0.01**2, 0.03**2  # (K L)^2 of equation 13, with L = 1
LEAST_ERROR = 1e-10  # mean square error below which nothing is gained: equal images have 100 dB instead of infinity


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """10 log10(1 / MSE) in dB `[n]` of images `[n, channels, height, width]`, at most 100."""
    return -10 * (a - b).square().flatten(1).mean(1).clamp_min(LEAST_ERROR).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity `[n]` of images `[n, channels, height, width]` (Wang 2004, equations 13 to 17).

    The mean is over the places where the whole window lies inside the image, and over channels. In an image that is
    smaller than the window, the window is the largest odd one that fits.
    """
    a, b = a.double(), b.double()  # variances are differences of nearly equal numbers
    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a, variance_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    largest = (mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2)
    return (alike / largest).flatten(1).mean(1)


def local_mean(x: Tensor) -> Tensor:
    """The Gaussian-weighted mean around each place of x `[n, channels, height, width]`, where the window fits."""
    channels, (height, width) = x.shape[1], (window(side).to(x) for side in x.shape[2:])
    x = F.conv2d(x, height.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, width.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def window(side: int) -> Tensor:
    """The one-dimensional window for that many pixels, float64, of sum 1."""
    reach = min(WINDOW, side - (side + 1) % 2) // 2
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / SIGMA) ** 2)
    return weights / weights.sum()
