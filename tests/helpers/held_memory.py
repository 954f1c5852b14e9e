"""What each step of a run's phases holds in memory, beside what is told of it beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from savae_dist.run.planning import memory
from savae_dist.run.run import Run


def steps_told_and_held(run: Run, samples: int) -> Iterator[tuple[str, int, int]]:
    """(name, bytes told, most bytes held) of every step, taken a second time: by then its optimiser has its states."""
    for phase in run.phases:
        cost, held = memory.phase_cost(run, phase), memory.HeldBytes()
        with held:
            updates = run.updates_of(phase, compile="none")
            steps = [step for step in phase.optimizer_steps() if step.update.active]
            for step in steps:
                memory.take(run, phase, updates, step, samples)
            for step, told in zip(steps, cost.steps, strict=True):
                held.after.clear()
                memory.take(run, phase, updates, step, samples)
                yield told.name, told.bytes(samples), max(held.after)
        for update in updates.values():
            update.close()
