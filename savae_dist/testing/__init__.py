"""Check a system of your own: call `check_system(MySystem())` in a test, or before the first long run."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from savae_dist.errors import ConfigError
from savae_dist.preprocess import DataSpec
from savae_dist.systems.fit import check_fit
from savae_dist.systems.phases import System
from savae_dist.testing import contract, parity
from savae_dist.testing.small_run import IMAGE, SIGNAL, SmallRun

__all__ = ["IMAGE", "SIGNAL", "SmallRun", "check_system"]


def check_system(system: System, spec: DataSpec = IMAGE, idle: Collection[str] = ()) -> None:
    """Train a system for a few steps in many ways; AssertionError says which rule it breaks, and where.

    1. Every network can be saved and loaded; what the updates train and the pipeline holds is there.
    2. Each update changes exactly the networks that it names, bit for bit, and leaves no gradient behind.
    3. Every parameter learns in its phase. idle: exceptions, as `network.name`, whose gradient must be zero.
    4. Losses give named scalars, and take their noise from the engine.
    5. Resuming from a checkpoint is exact, and so is saving and loading the pipeline; where the posteriors of a frozen
       encoder are kept, nothing else changes.
    6. Two processes train what one trains, unless a network has batch norms even with norm="group".

    spec: of the samples, small images, or `SIGNAL` for small signals. It takes some ten seconds on the CPU, most of
    them for the two processes.
    """
    try:
        check_fit(system, SmallRun(system, spec).networks)
    except ConfigError as error:
        raise AssertionError(str(error)) from error
    contract.check_updates(system, spec)
    contract.check_parameters(system, spec, idle)
    contract.check_terms(system, spec)
    contract.check_noise(system, spec)
    with tempfile.TemporaryDirectory() as folder:
        contract.check_resume(system, Path(folder) / "checkpoints", spec)
        contract.check_posteriors(system, spec)
        contract.check_pipeline(system, Path(folder), spec)
        if parity.has_parity(system, spec):
            parity.check_two_processes(system, Path(folder), spec)
