"""Losses as pure functions of tensors; all return scalars, means over the batch unless said otherwise.

Half-precision inputs are raised to float32 first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.latents import Posterior, full_precision
from savae_dist.networks.spectrogram import power_frames

Reduction = Literal["sum", "mean"]
AdversarialForm = Literal["match_real", "lsgan", "wasserstein", "hinge", "non_saturating"]
LatentForm = Literal["probabilities", "logits"]
UnlabelledForm = Literal["pseudo_label", "entropy", "consistency"]

SURE = 0.95  # probability from which a guess counts as a label
SPECTRAL_FLOOR = 1e-8  # power that is added before a logarithm or a root; white noise of variance 1 has 1 everywhere


def kl_divergence(
    posterior: Posterior, free_bits: float = 0.0, capacity: float = 0.0, reduction: Reduction = "sum"
) -> Tensor:
    """KL(q(z|x) || N(0, I)), summed (or averaged) over latent dimensions, mean over the batch (Zemouri eq 4).

    free_bits: nats of each dimension j that cost the same, used or not: max(free_bits, KL_j) (Kingma 2016, eq 15). It
    is taken there of the mean over a batch, and here of each sample, so that the mean over the global batch is the same
    however that is split over processes. capacity: |KL - capacity| of each sample (Burgess 2018, eq 8) holds the KL at
    so many nats; at 0 it is the KL itself.
    """
    kl = posterior.kl()
    if free_bits:
        kl = kl.clamp_min(free_bits)
    each = kl.sum(1) if reduction == "sum" else kl.mean(1)
    return ((each - capacity).abs() if capacity else each).mean()


def half_squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """1/2 ||x - x^||^2, summed over elements, mean over the batch; both `[batch, ...]`."""
    return 0.5 * F.mse_loss(full_precision(x_hat), full_precision(x), reduction="sum") / len(x)


def gaussian_likelihood(x_hat: Tensor, x: Tensor) -> Tensor:
    """-log N(x | x^, I) in nats, summed over elements, mean over the batch (Hou eq 1); both `[batch, *shape]`."""
    return half_squared_error(x_hat, x) + 0.5 * math.log(2 * math.pi) * x[0].numel()


def bernoulli_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | logits) in nats, x in [0, 1], summed over elements, mean over the batch; both `[batch, *shape]`."""
    return F.binary_cross_entropy_with_logits(full_precision(logits), full_precision(x), reduction="sum") / len(x)


def label_cross_entropy(
    logits: Tensor, y: Tensor, label_weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy over the labelled samples (Zemouri eq 7); zero, not NaN, where there is none.

    logits `[batch, classes]`; y int64 `[batch]`, -1 = unlabelled. `label_weight` is what the sum over this slice is
    multiplied by, so that the mean over all ranks and slices is the mean over the labelled samples of the whole
    global batch; None: 1 / number of labelled samples here. smoothing: the share of a label's probability that is
    spread evenly over all classes (Szegedy 2016, section 7).
    """
    labelled = y >= 0
    each = F.cross_entropy(full_precision(logits), y.clamp_min(0), reduction="none", label_smoothing=smoothing)
    if label_weight is None:
        label_weight = 1 / labelled.sum().clamp_min(1)
    # Masked by `where`, not by a product: zero times infinity or NaN is NaN and would spoil the sum.
    return torch.where(labelled, each, 0.0).sum() * label_weight


def unlabelled_loss(form: UnlabelledForm, logits: Sequence[Tensor], y: Tensor, weight: Tensor) -> Tensor:
    """The classifier's loss on samples without a label (y `[batch]` is -1); `weight` as in `label_cross_entropy`.

    logits `[batch, classes]` of one draw of the codes, for `consistency` of two. `pseudo_label`: cross-entropy to the
    likeliest class where that is nearly sure (Lee 2013; the threshold is FixMatch's, Sohn 2020); `entropy` of the
    probabilities (Grandvalet and Bengio 2005); `consistency`: squared distance between the probabilities of the two
    draws, summed over classes (Laine and Aila 2017).
    """
    first = full_precision(logits[0])
    p = first.softmax(1)
    if form == "pseudo_label":
        probability, guess = p.detach().max(1)
        each = torch.where(probability >= SURE, F.cross_entropy(first, guess, reduction="none"), 0.0)
    elif form == "entropy":
        each = -(p * first.log_softmax(1)).sum(1)
    else:
        each = (p - full_precision(logits[1]).softmax(1)).square().sum(1)
    return torch.where(y < 0, each, 0.0).sum() * weight


def feature_loss(
    features: Sequence[Tensor], features_hat: Sequence[Tensor], alpha: Sequence[float], reduction: Reduction = "mean"
) -> Tensor:
    """sum_i alpha_i E||F_i - F^_i||^2 (Zemouri eq 9); each norm averaged (or summed) over the elements of F_i."""
    loss = full_precision(features[0].new_zeros(()))
    for weight, f, f_hat in zip(alpha, features, features_hat, strict=True):
        if weight:
            squared = F.mse_loss(full_precision(f_hat), full_precision(f))
            loss = loss + weight * squared * (f[0].numel() if reduction == "sum" else 1)
    return loss


def gram(feature: Tensor) -> Tensor:
    """F F^T / positions of a feature `[batch, channels, ...]`, `[batch, channels, channels]` (Gatys 2016, eq 3).

    What the channels do together, wherever it happens: such statistics have no phase to miss.
    """
    flat = full_precision(feature).flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def spectral_loss(x: Tensor, x_hat: Tensor, windows: Sequence[int]) -> Tensor:
    """Distance of the power spectra of signals `[batch, channels, length]`, mean over the windows' lengths.

    Spectral convergence || |S| - |S^| || / || |S| || and the mean of |log |S|^2 - log |S^|^2| (Yamamoto 2020, eq 4
    to 6), of spectra averaged over time (Welch 1967), since a code cannot carry when something happens in a window.
    """
    terms = []
    for window in windows:
        power, power_hat = (power_frames(signal, window).mean(2) for signal in (x, x_hat))
        log_magnitude = F.l1_loss(torch.log(power_hat + SPECTRAL_FLOOR), torch.log(power + SPECTRAL_FLOOR))
        size, size_hat = ((one + SPECTRAL_FLOOR).sqrt().flatten(1) for one in (power, power_hat))
        terms.append(((size - size_hat).norm(dim=1) / size.norm(dim=1)).mean() + log_magnitude)
    return torch.stack(terms).mean()


def envelope(x: Tensor) -> Tensor:
    """The Hilbert envelope of signals `[batch, channels, length]` without its mean: the rhythm of impacts."""
    x, n = full_precision(x), x.shape[-1]
    keep = torch.zeros(n, dtype=x.dtype, device=x.device)
    keep[0], keep[1 : (n + 1) // 2] = 1, 2
    if n % 2 == 0:
        keep[n // 2] = 1
    analytic = torch.fft.ifft(torch.fft.fft(x) * keep)
    size = (analytic.real.square() + analytic.imag.square() + SPECTRAL_FLOOR).sqrt()
    return size - size.mean(-1, keepdim=True)


def tap_losses(features: Mapping[str, Tensor], features_hat: Mapping[str, Tensor], taps: Sequence[str]) -> Tensor:
    """1 / (2 C W H) ||Phi_l(x) - Phi_l(x^)||^2 of each tap (Hou eq 5), mean over the batch, `[taps]`."""
    pairs = ((full_precision(features[tap]), full_precision(features_hat[tap])) for tap in taps)
    return torch.stack([0.5 * F.mse_loss(f_hat, f) for f, f_hat in pairs])


def latent_loss(logits: Tensor, logits_hat: Tensor, form: LatentForm = "probabilities") -> Tensor:
    """E||Class(Z) - Class(Z^)||^2, summed over classes (Zemouri eq 11), of softmax probabilities or of the logits.

    Logits `[batch, classes]`. A mean over classes is this with gamma divided by their number.
    """
    compared = [full_precision(each) for each in (logits, logits_hat)]
    if form == "probabilities":
        compared = [each.softmax(1) for each in compared]
    return (compared[0] - compared[1]).square().sum(1).mean()


def critic_loss(form: AdversarialForm, score: Tensor, sign: int, label: float = 1.0) -> Tensor:
    """The critic's loss on one kind of input: sign +1 for real samples, -1 for generated ones; score `[batch]`.

    `match_real` and `lsgan` regress the score to +-label (Zemouri Algorithm 2), `hinge` has the margin `label`.
    """
    score = full_precision(score)
    if form in ("match_real", "lsgan"):
        return (sign * label - score).square().mean()
    if form == "wasserstein":
        return -sign * score.mean()
    if form == "hinge":
        return F.relu(label - sign * score).mean()
    return F.softplus(-sign * score).mean()


def chance_loss(form: AdversarialForm, label: float = 1.0, weight: float = 1.0) -> dict[str, float]:
    """By kind of sample, `weight` times the `critic_loss` of a critic that gives all samples the best single score.

    That is for as many real as generated samples. Empty for `wasserstein`: its loss is then 0, and has no floor.
    """
    if form == "wasserstein":
        return {}
    chance = {"match_real": label**2, "lsgan": label**2, "hinge": label, "non_saturating": math.log(2)}[form]
    return dict.fromkeys(("real", "generated"), weight * chance)


def adversarial_loss(form: AdversarialForm, score_hat: Tensor, score: Callable[[], Tensor], label: float) -> Tensor:
    """The decoder's loss on Dis(X^) `[batch]`; `match_real` is E[(Dis(X) - Dis(X^))^2] (Zemouri eq 10).

    `score` gives Dis(X), called only where the form needs it: no other form looks at the real samples.
    """
    score_hat = full_precision(score_hat)
    if form == "match_real":
        return (full_precision(score()).detach() - score_hat).square().mean()
    if form == "lsgan":
        return (label - score_hat).square().mean()
    if form == "non_saturating":
        return F.softplus(-score_hat).mean()
    return -score_hat.mean()


def slope(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """d Dis(x) / d x of each sample, shaped like x; it can be differentiated by the critic's weights."""
    if torch.compiler.is_compiling():  # the compiler knows this form alone, under which torch keeps all activations
        return torch.func.grad(lambda u: full_precision(critic(u)).sum())(x)
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(full_precision(critic(x)).sum(), x, create_graph=again)[0]


def gradient_penalty(critic: Callable[[Tensor], Tensor], x: Tensor, x_hat: Tensor, mix: Tensor) -> Tensor:
    """E[(||grad Dis(u)|| - 1)^2] at u = mix x + (1 - mix) x^ (Gulrajani 2017, eq 3); mix `[batch]` in [0, 1]."""
    mix = mix.view(-1, *[1] * (x.ndim - 1))
    between = (mix * x + (1 - mix) * x_hat).detach()
    return (slope(critic, between).flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """R1, 1/2 E||grad Dis(x)||^2 on real samples (Mescheder 2018, eq 9, without its weight gamma)."""
    return 0.5 * slope(critic, x).flatten(1).square().sum(1).mean()
