"""What every system must keep to, whatever its paper: one table of systems and options, and the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.contract import OPTIONS, make, specs_of

from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SYSTEMS
from savae_dist.systems.losses import AdversarialForm
from savae_dist.testing import contract
from savae_dist.testing.small_run import SmallRun, distance
from savae_dist.training.batches import BatchSplit

# Parameters whose gradient is zero by the mathematics: a constant added to a Wasserstein score changes nothing.
IDLE = {"wgan": {"critic.score.bias"}}

ZERO_AT_FIRST = {"pseudo_label"}  # no guess of an untrained classifier is sure enough

CASES = [pytest.param(name, i, id=f"{name}-{i}") for name, rows in OPTIONS.items() for i in range(len(rows))]
every_case = pytest.mark.parametrize(("name", "row"), CASES)
every_system = pytest.mark.parametrize("name", OPTIONS)
both_kinds = pytest.mark.parametrize(
    ("name", "row", "spec"),
    [
        pytest.param(name, row, spec, id=f"{name}-{row}-{spec.kind}")
        for name, rows in OPTIONS.items()
        for row in range(len(rows))
        for spec in specs_of(name, row)
    ],
)


def test_every_system_stands_in_the_table() -> None:
    assert OPTIONS.keys() == SYSTEMS.keys()
    assert all(SYSTEMS[name].name == name for name in SYSTEMS)
    forms = {str(row.get("adversarial", "match_real")) for row in OPTIONS["savae"]}
    assert forms == set(AdversarialForm.__args__)


@both_kinds
def test_each_update_changes_exactly_what_it_trains(name: str, row: int, spec: DataSpec) -> None:
    contract.check_updates(make(name, row, spec), spec)


@every_case
def test_every_parameter_learns_in_its_phase(name: str, row: int) -> None:
    contract.check_parameters(make(name, row), specs_of(name, row)[0], idle=IDLE.get(name, set()))


@every_case
def test_losses_take_their_noise_from_the_engine(name: str, row: int) -> None:
    contract.check_noise(make(name, row), specs_of(name, row)[0])


@every_case
def test_terms_are_named_scalars_and_none_is_zero(name: str, row: int) -> None:
    """A term of weight zero is not computed."""
    terms = contract.check_terms(make(name, row), specs_of(name, row)[0])
    assert {term for term, value in terms.items() if not value} <= ZERO_AT_FIRST


@every_system
def test_accumulation_changes_nothing(name: str) -> None:
    whole, parts = (
        SmallRun(make(name), norm="group", dtype=torch.float64, split=BatchSplit(8, accumulate=n)) for n in (1, 2)
    )
    for run in (whole, parts):
        for phase in run.phases:
            run.run(phase, 2)
    for network in whole.networks:
        assert distance(whole.networks[network].state_dict(), parts.networks[network].state_dict()) < 1e-8, network


@every_case
def test_going_on_from_files_is_exact(name: str, row: int, tmp_path: Path) -> None:
    contract.check_resume(make(name, row), tmp_path, specs_of(name, row)[0])


@pytest.mark.parametrize(
    ("row", "spec"), [(row, spec) for row in range(len(OPTIONS["savae"])) for spec in specs_of("savae", row)]
)
def test_kept_posteriors_change_nothing(row: int, spec: DataSpec) -> None:
    system = make("savae", row, spec)
    assert [phase.posteriors for phase in system.phases()] == [None, "encoder"]
    contract.check_posteriors(system, spec)


@both_kinds
def test_a_pipeline_gives_the_same_after_loading(name: str, row: int, spec: DataSpec, tmp_path: Path) -> None:
    system = make(name, row, spec)
    contract.check_pipeline(system, tmp_path, spec)
    pipeline, x = Pipeline.from_pretrained(tmp_path / "pipeline"), SmallRun(system, spec).data.x[:4]
    assert ("sample" in contract.outputs(pipeline, x)) == ("decoder" in system.pipeline)
    if "encoder" not in pipeline.networks:
        with pytest.raises(ValueError, match="this needs a network 'encoder'"):
            pipeline.posterior(x)
