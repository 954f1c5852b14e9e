"""What every system must keep to, whatever its paper: one table of systems and options, and the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.contract import OPTIONS, make
from helpers.training import IMAGE, SIGNAL, Trainer, distance, same
from torch import Tensor

from savae_dist.networks import FeatureNetwork
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.run import checkpoint
from savae_dist.run.checkpoint import TrainingState
from savae_dist.systems import SYSTEMS
from savae_dist.systems.losses import AdversarialForm
from savae_dist.training.batches import BatchSplit

# Parameters whose gradient is zero by the mathematics: a constant added to a Wasserstein score changes nothing.
IDLE = {"wgan": {"critic.score.bias"}}

ZERO_AT_FIRST = {"pseudo_label"}  # no guess of an untrained classifier is sure enough

CASES = [pytest.param(name, i, id=f"{name}-{i}") for name, rows in OPTIONS.items() for i in range(len(rows))]
every_case = pytest.mark.parametrize(("name", "row"), CASES)
every_system = pytest.mark.parametrize("name", OPTIONS)
both_kinds = pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])


def test_every_system_stands_in_the_table() -> None:
    assert OPTIONS.keys() == SYSTEMS.keys()
    assert all(SYSTEMS[name].name == name for name in SYSTEMS)
    forms = {str(row.get("adversarial", "match_real")) for row in OPTIONS["savae"]}
    assert forms == set(AdversarialForm.__args__)


@both_kinds
@every_case
def test_each_update_changes_exactly_what_it_trains(name: str, row: int, spec: DataSpec) -> None:
    """Bit for bit, buffers included; everything that it trains does change; and no gradient is left behind."""
    trainer = Trainer(make(name, row, spec), spec)
    for phase in trainer.phases.values():
        updates = trainer.prepare(phase.name)
        for planned in trainer.plan(phase):
            before = trainer.weights()
            batch = trainer.batch(planned)
            updates[planned.step.update.name].step(planned.step.loss_index, [batch], 0)
            changed = {network for network, state in trainer.weights().items() if not same(state, before[network])}
            assert changed == set(planned.step.update.trains)
            assert all(p.grad is None for network in trainer.networks.values() for p in network.parameters())


@every_case
def test_every_parameter_learns_in_its_phase(name: str, row: int) -> None:
    trainer = Trainer(make(name, row))
    for phase in trainer.phases.values():
        before = trainer.weights()
        trainer.run(phase.name, 2)
        trained = {network for update in phase.updates if update.active for network in update.trains}
        still = {
            f"{network}.{key}"
            for network in trained
            for key, value in trainer.networks[network].named_parameters()
            if torch.equal(value, before[network][key])
        }
        assert still == IDLE.get(name, set())
        assert all(bool(v.isfinite().all()) for state in trainer.weights().values() for v in state.values())


@every_case
def test_losses_take_their_noise_from_the_engine(name: str, row: int) -> None:
    """The global random state plays no part, so resumption and ranks need not care for it."""
    ends = []
    for seed in (1, 2):
        trainer = Trainer(make(name, row))
        torch.manual_seed(seed)
        for phase in trainer.phases:
            trainer.run(phase, 1)
        ends.append(trainer.weights())
    assert all(same(ends[0][network], ends[1][network]) for network in ends[0])


@every_case
def test_terms_are_named_scalars_and_none_is_zero(name: str, row: int) -> None:
    """A term of weight zero is not computed."""
    trainer = Trainer(make(name, row))
    for phase in trainer.phases.values():
        updates = trainer.prepare(phase.name)
        for planned in trainer.plan(phase):
            batch = trainer.batch(planned)
            updates[planned.step.update.name].enter()
            terms = updates[planned.step.update.name].parallel.forward(batch, planned.step.loss_index)
            assert terms
            for key, value in terms.items():
                assert value.shape == ()
                assert value.item() != 0 or key in ZERO_AT_FIRST, key


@every_system
def test_accumulation_changes_nothing(name: str) -> None:
    whole, parts = (
        Trainer(make(name), norm="group", dtype=torch.float64, split=BatchSplit(8, accumulate=n)) for n in (1, 2)
    )
    for trainer in (whole, parts):
        for phase in trainer.phases:
            trainer.run(phase, 2)
    for network in whole.networks:
        assert distance(whole.networks[network].state_dict(), parts.networks[network].state_dict()) < 1e-8, network


@every_system
def test_going_on_from_files_is_exact(name: str, tmp_path: Path) -> None:
    """Networks, optimisers and averages, in the middle of every phase."""
    whole = Trainer(make(name), ema=0.5)
    for number, phase in enumerate(whole.phases):
        start = whole.weights()
        whole.run(phase, 3)
        first = Trainer(make(name), ema=0.5)
        for network, state in start.items():
            first.networks[network].load_state_dict(state)
        first.run(phase, 1)
        folder = tmp_path / phase
        saved = checkpoint.save(folder, first.networks, first.updates, TrainingState(phase, 1, number, 0), keep=1)
        again = Trainer(make(name), ema=0.5)
        assert checkpoint.newest(folder) == saved
        kept = {name for name, network in again.networks.items() if not isinstance(network, FeatureNetwork)}
        assert set(checkpoint.load_networks(saved / "networks", again.networks)) == kept
        checkpoint.load_updates(saved, again.prepare(phase))
        again.run(phase, 3, first=1)
        for network, state in whole.weights().items():
            assert same(again.networks[network].state_dict(), state), network
        for update, prepared in whole.updates.items():
            tensors, values = prepared.state()
            found_tensors, found_values = again.updates[update].state()
            assert same(found_tensors, tensors), update
            assert found_values == values
            for network, average in prepared.averages.items():
                assert same(again.updates[update].averages[network].network.state_dict(), average.network.state_dict())


def outputs(pipeline: Pipeline, x: Tensor) -> dict[str, Tensor]:
    """What each network of a pipeline gives."""
    found = {"samples": pipeline.decoded(pipeline.latents(3, seed=0))} if "decoder" in pipeline.networks else {}
    if "encoder" in pipeline.networks:
        found["mean"], found["log_variance"] = pipeline.posterior(x)
    if "classifier" in pipeline.networks:
        found["logits"] = pipeline.logits(pipeline.posterior(x).mean)
    return found


@both_kinds
@every_case
def test_a_pipeline_gives_the_same_after_loading(name: str, row: int, spec: DataSpec, tmp_path: Path) -> None:
    system = make(name, row, spec)
    trainer = Trainer(system, spec)
    trainer.run(next(reversed(trainer.phases)), 1)  # batch norms that are not the initial ones
    pipeline = Pipeline({role: trainer.networks[role] for role in system.pipeline if role in trainer.networks}, spec)
    pipeline.save_pretrained(tmp_path)
    x = trainer.data.x[:4]
    expected, found = outputs(pipeline, x), outputs(Pipeline.from_pretrained(tmp_path), x)
    assert "samples" in expected
    assert same(found, expected)
    if "encoder" not in pipeline.networks:
        with pytest.raises(ValueError, match="this needs a network 'encoder'"):
            pipeline.posterior(x)
