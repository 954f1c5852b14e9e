"""The posteriors of a frozen encoder, computed once for every training sample and looked up from then on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from savae_dist.data import RawBatch
from savae_dist.latents import Posterior
from savae_dist.networks import Encoder
from savae_dist.training.batches import BatchBuilder, Together, alone

BITS = {4: torch.int32, 8: torch.int64}


class Posteriors:
    """mean, log_variance: `[ids, K]` by the id of a sample. known: bool `[ids]` on the CPU, those that were read."""

    def __init__(self, mean: Tensor, log_variance: Tensor, known: Tensor) -> None:
        self.mean, self.log_variance, self.known = mean, log_variance, known

    def of(self, ids: Tensor) -> Posterior | None:
        """q(z|x) of these samples, ids int64 `[n]`; None if one of them is not known."""
        if not self.known.numpy()[ids.numpy()].all():
            return None
        rows = ids.to(self.mean.device, non_blocking=True)
        return Posterior(self.mean[rows], self.log_variance[rows])


def encode(
    encoder: Encoder,
    raw: Iterable[RawBatch],
    builder: BatchBuilder,
    ids: int,
    arithmetic: torch.autocast,
    together: Together = alone,
) -> Posteriors:
    """The posteriors of the samples in `raw`, of which all ranks together have each once; ids run below `ids`.

    They are computed in batches of the size that a rank sees in training: a convolution of another batch size may add
    up in another order, and so round otherwise.
    """
    split, rows = builder.split, builder.split.rows
    like = next(encoder.parameters())
    mean = torch.zeros(ids, encoder.latent_dim, dtype=like.dtype, device=builder.device)
    log_variance, known = torch.zeros_like(mean), torch.zeros(ids, dtype=torch.int32, device=builder.device)

    def work() -> None:
        for part in raw:
            for first in range(0, len(part.id), rows):
                own = part.id[first : first + rows].to(builder.device)
                filled = (first + torch.arange(rows)).clamp_max(len(part.id) - 1)
                with arithmetic:
                    posterior, _ = encoder(builder.batch(part.taken(filled)).x)
                mean[own], log_variance[own] = (value.detach()[: len(own)] for value in posterior)
                known[own] = 1

    together(work)
    if torch.distributed.is_initialized() and split.ranks > 1:
        for table in (mean, log_variance):  # as whole numbers, whose sum with zeros keeps every bit
            torch.distributed.all_reduce(table.view(BITS[table.element_size()]))
        torch.distributed.all_reduce(known)
    return Posteriors(mean, log_variance, known.bool().cpu())
