"""What systems say of a critic that cannot tell, against the best that one can do which gives all samples one score."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.contract import OPTIONS, make, specs_of
from torch import Tensor, nn

from savae_dist.networks.base import Critic, Discriminator
from savae_dist.systems.phases import Update
from savae_dist.testing.small_run import SmallRun

CASES = [pytest.param(name, i, id=f"{name}-{i}") for name, rows in OPTIONS.items() for i in range(len(rows))]

# The best for labels +-L, for 0 and 1, and for one real among three; and their neighbours.
SCORES = [near + best for best in (0.0, 0.5, -math.log(2)) for near in (-0.05, 0.0, 0.05)]


def judgement(run: SmallRun, phase: str, update: Update, score: float) -> Tensor:
    """The terms of `update.chance`, summed, where its networks give every sample that score."""

    def constant(_module: nn.Module, _inputs: object, scores: Tensor) -> Tensor:
        return 0 * scores + score  # still a function of the samples, as penalties ask

    hooks = [run.networks[name].register_forward_hook(constant) for name in update.trains]
    found = {}
    for planned in run.plan(run.phases[phase]):
        if planned.step.update.name == update.name:
            loss = planned.step.update.losses[planned.step.loss_index]
            found |= loss(SimpleNamespace(**run.networks), run.batch(planned))
    for hook in hooks:
        hook.remove()
    return torch.stack([found[name] for name in update.chance]).sum().detach()


@pytest.mark.parametrize(("name", "row"), CASES)
def test_chance_is_the_best_of_one_score_for_all(name: str, row: int) -> None:
    spec = specs_of(name, row)[0]
    run = SmallRun(make(name, row, spec), spec)
    for phase in run.phases.values():
        for update in (update for update in phase.updates if update.active and update.chance):
            assert all(isinstance(run.networks[network], Critic | Discriminator) for network in update.trains)
            run.prepare(phase.name)
            best = min(float(judgement(run, phase.name, update, score)) for score in SCORES)
            assert sum(update.chance.values()) == pytest.approx(best), update.name


def test_which_systems_know_chance() -> None:
    """All with a critic, but where its score has no aim."""
    known = {
        f"{name}-{row}"
        for name, rows in OPTIONS.items()
        for row in range(len(rows))
        if any(update.chance for phase in make(name, row).phases() for update in phase.updates)
    }
    wasserstein = {"savae-4", "vae_wgan-0", "vae_wgan-2", "vae_wgan-3", "wgan-0", "wgan-1"}
    without = {f"{name}-{row}" for name in ("vae", "dfc_vae", "classifier") for row in range(len(OPTIONS[name]))}
    assert known == {case.id for case in CASES} - wasserstein - without
