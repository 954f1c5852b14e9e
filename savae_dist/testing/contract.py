"""The rules that every system must keep, whatever its paper; each function raises AssertionError with the broken rule.

`idle`: parameters, as `network.name`, whose gradient must be zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from savae_dist.networks import FeatureNetwork, Network
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.training_state import TrainingState
from savae_dist.systems.phases import OptimizerStep, System
from savae_dist.testing.small_run import IMAGE, SmallRun, same

Tensors = Mapping[str, Mapping[str, Tensor]]  # network -> name -> value


def require(kept: bool, sentence: str) -> None:
    if not kept:
        raise AssertionError(sentence)


def difference(a: Tensors, b: Tensors) -> str:
    """`network.name` of the first tensor that is not the same to the bit, empty if all are."""
    for network, tensors in a.items():
        for name, value in tensors.items():
            if not torch.equal(value, b[network][name]):
                return f"{network}.{name}"
    return ""


def named(phase: str, step: OptimizerStep) -> str:
    return f"phase {phase!r}, update {step.update.name!r}, loss {step.loss_index + 1}"


def check_updates(system: System, spec: DataSpec = IMAGE, **options: Any) -> None:
    """Each update changes exactly the networks that it names, bit for bit, and leaves no gradient behind.

    options: further ones of `SmallRun`.
    """
    run = SmallRun(system, spec, **options)
    for phase in run.phases.values():
        run.prepare(phase.name)
        for planned in run.plan(phase):
            step, before = planned.step, run.tensors()
            run.take(planned)
            where, after = named(phase.name, step), run.tensors()
            for name in run.networks:
                changed = difference({name: before[name]}, after)
                if name in step.update.trains:
                    require(bool(changed), f"{where}: it trains {name!r}, and no gradient of its loss gets there")
                else:
                    require(not changed, f"{where}: it changes {changed} without naming {name!r} in `trains`")
            left = [name for name, n in run.networks.items() if any(p.grad is not None for p in n.parameters())]
            require(not left, f"{where}: it leaves a gradient behind in {', '.join(left)}")


def check_parameters(system: System, spec: DataSpec = IMAGE, idle: Collection[str] = ()) -> None:
    """Every parameter of a trained network learns in its phase, and all stay finite."""
    run = SmallRun(system, spec)
    for phase in run.phases.values():
        before = run.weights()
        run.run(phase.name, 2)
        for update in (update for update in phase.updates if update.active):
            for network in update.trains:
                for key, value in run.networks[network].named_parameters():
                    name, moved = f"{network}.{key}", not torch.equal(value, before[network][key])
                    where = f"phase {phase.name!r}, update {update.name!r}"
                    require(bool(value.isfinite().all()), f"{where}: {name} is not finite after two steps")
                    require(
                        moved or name in idle,
                        f"{where}: {name} learns nothing: use it in a loss, leave it out, or call it `idle` if its "
                        "gradient is zero by the mathematics",
                    )
                    require(not moved or name not in idle, f"{where}: {name} is called idle, and learns")


def check_noise(system: System, spec: DataSpec = IMAGE) -> None:
    """Losses take their noise from the engine, so that a resumption and the number of processes change nothing."""
    starts, ends = [], []
    for seed in (1, 2):
        run = SmallRun(system, spec)
        starts.append(run.tensors())
        torch.manual_seed(seed)
        for phase in run.phases:
            run.run(phase, 1)
        ends.append(run.tensors())
    differs = difference(*starts)
    require(not differs, f"`build` makes another {differs} each time: initialise it from torch's generator")
    differs = difference(*ends)
    require(
        not differs,
        f"{differs} depends on the global random state: a loss draws numbers of its own; declare them as the "
        "update's `noise`, and take them from `batch.noise`",
    )


def check_terms(system: System, spec: DataSpec = IMAGE) -> dict[str, float]:
    """Every loss gives named scalars; returns them by the last part of their name."""
    run, found = SmallRun(system, spec), {}
    for phase in run.phases.values():
        updates = run.prepare(phase.name)
        for planned in run.plan(phase):
            update, where = updates[planned.step.update.name], named(phase.name, planned.step)
            update.enter()
            terms = update.parallel.forward(run.batch(planned), planned.step.loss_index)
            require(bool(terms), f"{where}: it has no terms")
            for name, value in terms.items():
                require(value.shape == (), f"{where}: term {name!r} is no scalar, but {list(value.shape)}")
                found[name] = value.item()
        for name, chance in ((one.name, one.chance) for one in phase.updates if one.active):
            unknown = ", ".join(sorted(chance.keys() - found.keys()))
            require(not unknown, f"update {name!r}: `chance` names {unknown}, which none of its losses gives")
    return found


def check_resume(system: System, folder: Path, spec: DataSpec = IMAGE, **options: Any) -> None:
    """A run that is resumed in the middle of each phase equals an uninterrupted one, bit for bit.

    That holds for networks, optimisers and averages. folder: for the checkpoints. options: further ones of `SmallRun`.
    """
    options = {"ema": 0.5, **options}
    whole = SmallRun(system, spec, **options)
    folder.mkdir(parents=True, exist_ok=True)
    for number, phase in enumerate(whole.phases):
        start = whole.weights()
        whole.run(phase, 3)
        first = SmallRun(system, spec, **options)
        for network, state in start.items():
            first.networks[network].load_state_dict(state)
        first.run(phase, 1)
        here = TrainingState(phase, 1, number, 0, lanes=8, data="")
        saved = checkpoint.save(folder / phase, first.networks, first.updates, here, keep=1)
        again = SmallRun(system, spec, **options)
        kept = {name for name, network in again.networks.items() if not isinstance(network, FeatureNetwork)}
        loaded = set(checkpoint.load_networks(saved / "networks", again.networks))
        require(loaded == kept, f"phase {phase!r}: a checkpoint loses {', '.join(kept - loaded)}")
        checkpoint.load_updates(saved, again.prepare(phase))
        again.run(phase, 3, first=1)
        differs = difference(whole.tensors(), again.tensors())
        require(
            not differs,
            f"phase {phase!r}: {differs} is another after a resumption: keep all that changes in training in "
            "parameters and in buffers that are saved",
        )
        _check_updates_alike(phase, whole, again)


def check_posteriors(system: System, spec: DataSpec = IMAGE) -> None:
    """Where a phase keeps its frozen encoder's posteriors, it trains the same without, bit for bit.

    Also if they are kept from its second step on, as after a resumption.
    """
    for name in [phase.name for phase in system.phases() if phase.posteriors is not None]:
        ends = []
        for first in (0, 1, 3):
            run = SmallRun(system, spec, norm="group")
            run.run(name, 0)
            plans = [run.plan(run.phases[name], iteration) for iteration in range(3)]
            for number, plan in enumerate(plans):
                if number == first:
                    run.keep_posteriors(name)
                run.follow(plan)
            ends.append(run.tensors())
        differs = difference(ends[0], ends[2]) or difference(ends[1], ends[2])
        require(
            not differs,
            f"phase {name!r}: {differs} is another where posteriors are kept: take them from `batch.posterior` only "
            "where the loss would encode `batch.x`",
        )


def _check_updates_alike(phase: str, whole: SmallRun, again: SmallRun) -> None:
    for name, update in whole.updates.items():
        (tensors, values), (found, found_values) = update.state(), again.updates[name].state()
        alike = same(found, tensors) and found_values == values
        require(alike, f"phase {phase!r}: the optimiser of {name!r} is another after a resumption")
        for network, average in update.averages.items():
            other = again.updates[name].averages[network].network
            alike = same(other.state_dict(), average.network.state_dict())
            require(alike, f"phase {phase!r}: the average of {network!r} is another after a resumption")


def check_pipeline(system: System, folder: Path, spec: DataSpec = IMAGE) -> None:
    """The networks, and a pipeline of them, are the same after saving and loading. folder: to save them in."""
    run = SmallRun(system, spec)
    run.run(next(reversed(run.phases)), 1)  # so that the statistics of batch norms are not the initial ones
    for name, network in run.networks.items():
        network.save_pretrained(folder / "networks" / name)
        again = Network.from_pretrained(folder / "networks" / name)
        differs = difference({name: network.state_dict()}, {name: again.state_dict()})
        require(not differs, f"{differs} is another after saving and loading")
    roles = [role for role in system.pipeline if role in run.networks]
    pipeline = Pipeline({role: run.networks[role] for role in roles}, spec)
    pipeline.save_pretrained(folder / "pipeline")
    x = run.data.x[:4]
    expected, found = outputs(pipeline, x), outputs(Pipeline.from_pretrained(folder / "pipeline"), x)
    for name, value in expected.items():
        alike = torch.equal(value, found[name])
        require(alike, f"the pipeline's {name} is another after saving and loading: look at the networks' arguments")


def outputs(pipeline: Pipeline, x: Tensor) -> dict[str, Tensor]:
    """What each network of a pipeline gives for normalised samples x."""
    found = {"sample": pipeline.decoded(pipeline.latents(3, seed=0))} if "decoder" in pipeline.networks else {}
    if "encoder" in pipeline.networks:
        found["mean"], found["log-variance"] = pipeline.posterior(x)
    if "classifier" in pipeline.networks and "encoder" in pipeline.networks:
        found["logits"] = pipeline.logits(pipeline.posterior(x).mean)
    return found
