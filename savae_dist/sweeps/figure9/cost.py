"""How long a grid will take, from one short run per K that does once all that a cell does once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from savae_dist.errors import ConfigError
from savae_dist.files import read_object, write_json
from savae_dist.sweeps import running
from savae_dist.sweeps.figure9.plan import Grid, Plan
from savae_dist.sweeps.trials import Trial

NAME = "cost.json"


def minutes(plan: Plan, grid: Grid, out: Path, jobs: int) -> float:
    """Of what is not finished yet, the judge left out; `jobs` runs at a time share what there is."""
    seconds = 0.0
    for name in plan.phase_1:
        phase_1 = _open(trial for (k, _), trial in grid.phase_1.items() if k == name)
        cells = _open(cell for cell in grid.cells if f"K={cell.varied['K']}" == name)
        if phase_1 or cells:
            per_run, rates = _measured(plan, grid, name, out)
            for trial, phase in [*((one, "vec") for one in phase_1), *((one, "decoder") for one in cells)]:
                steps = {"vec": trial.resolved.system.vec_steps, "decoder": trial.resolved.system.decoder_steps}[phase]
                seconds += per_run + steps * trial.resolved.data.batch_size / rates[phase]
    return seconds / 60 / jobs


def _open(trials: Iterable[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.exit_code is None]


def _measured(plan: Plan, grid: Grid, name: str, out: Path) -> tuple[float, dict[str, float]]:
    """Seconds of a run without its steps, and samples per second by phase; measured once, then read from `out`."""
    known = read_object(out / NAME)
    if name not in known:
        of_k = (cell for cell in grid.cells if f"K={cell.varied['K']}" == name)
        cell = max(of_k, key=lambda cell: (float(cell.varied["beta"]), float(cell.varied["gamma"])))  # all terms count
        validations = max(1, cell.resolved.system.decoder_steps // cell.resolved.validate_every)
        folder = out / f"probe-{name}"
        words = [word for word in cell.arguments if not word.startswith(("networks.initial=", "judge="))]
        words += ["system.vec_steps=1000", f"max_steps={validations}", "validate_every=1"]
        shutil.rmtree(folder, ignore_errors=True)
        start = time.monotonic()
        running.run(probe := replace(cell, arguments=tuple(words), folder=folder))
        if probe.exit_code != 0:
            raise ConfigError(f"the trial run of {name} ended badly; see {running.log_of(probe)}")
        rates = read_object(folder / "summary.json")["samples_per_second"]
        known[name] = {"seconds": time.monotonic() - start, "samples_per_second": rates}
        write_json(out / NAME, known)
        shutil.rmtree(folder)
    return known[name]["seconds"], known[name]["samples_per_second"]
