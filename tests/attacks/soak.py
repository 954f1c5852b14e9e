"""A run of two ranks for an hour, killed every minute or two; what its processes hold, and whether that stays flat.

The same command is started again after every kill until it is done, and compared, bit for bit, with an undisturbed run
of the same configuration, which is trained afterwards and takes nearly as long again. Descriptors, resident memory and
maps of each rank are read every second. Flat means that a line through the second half of the undisturbed run rises by
no more than `RISE`, and so does one through what the killed launches held when they had trained for a while.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from attacks.common import Report, emptied, result
from attacks.random_kills import LIMIT, VICTIMS, killed_until_done, undisturbed
from helpers.launching import shards

RUN = ["networks.width=4", "system.latent_dim=3", "data.batch_size=16", "data.shuffle_window=2", "keep_checkpoints=2"]
RUN += ["system.vec_steps=1000000", "system.decoder_steps=1000000", "timeout=30"]
RUN += ["data.train=data", "data.validation=data", "output=run"]
SECOND_PHASE = 0.8  # of the time: so that the second half of the run lies within one phase
SAVED_EVERY = 10.0  # seconds
WARM = 20.0  # seconds after which a launch has opened and mapped what it will
# Growth, over the second half, that is none: an absolute number, or a share of the mean.
RISE = {"descriptors": (3.0, 0.0), "megabytes": (8.0, 0.03), "maps": (10.0, 0.01)}


@dataclass
class Held:
    """What each rank held: rows of (seconds, rank, seconds since its start, descriptors, megabytes, maps)."""

    rows: list[tuple[float, ...]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def look(self, ranks: dict[int, int]) -> None:
        """Note what these processes hold now."""
        for rank, pid in ranks.items():
            try:
                process, folder = psutil.Process(pid), Path(f"/proc/{pid}")
                age = time.time() - process.create_time()
                descriptors, maps = len(list((folder / "fd").iterdir())), (folder / "maps").read_text().count("\n")
                row = (time.monotonic() - self.began, rank, age, descriptors, process.memory_info().rss / 1e6, maps)
            except (psutil.Error, OSError):  # it has just ended
                continue
            self.rows.append(row)

    def growth(self) -> dict[str, tuple[float, float]]:
        """Name -> (rise of a line through the second half, mean there); of the rank that rises most."""
        table = np.array([row for row in self.rows if row[2] > WARM] or [(0.0,) * 6])
        late = table[table[:, 0] >= table[:, 0].max() / 2]
        found = {}
        for column, name in enumerate(RISE, start=3):
            rises = []
            for rank in np.unique(late[:, 1]):
                seconds, ages, values = late[late[:, 1] == rank][:, [0, 2, column]].T
                rise = _slope(seconds, ages, values) * np.ptp(seconds)
                rises.append((float(rise), float(values.mean())))
            found[name] = max(rises)
        return found


def _slope(seconds: np.ndarray, ages: np.ndarray, values: np.ndarray) -> float:
    """How much a value rises per second of the attack.

    Where there were several launches, what each of them gains while it warms up is told apart: it depends on its age.
    """
    several = np.ptp(seconds - ages) > 1.0
    columns = [np.ones_like(seconds), seconds - seconds.mean(), *([ages] if several else [])]
    return float(np.linalg.lstsq(np.stack(columns, axis=1), values)[0][1])


def flat(growth: dict[str, tuple[float, float]]) -> list[str]:
    """The names of what is not flat."""
    return [name for name, (rise, mean) in growth.items() if rise > max(RISE[name][0], RISE[name][1] * mean)]


def sized(work: Path, seconds: float, every: tuple[float, float]) -> list[str]:
    """The arguments of a run that takes about so long if it is killed so often, as measured on a short one."""
    folder = emptied(work / "trial")
    shards(folder / "data")
    trial = [*RUN, "max_steps=100", "log_every=20"]
    whole = undisturbed(folder, trial)
    rates = json.loads((folder / "run" / "summary.json").read_text())["samples_per_second"]
    vec, decoder = (16 / rates[phase] for phase in ("vec", "decoder"))  # seconds per step
    start = max(0.0, whole - 100 * (vec + decoder))
    kills = seconds / (sum(every) / 2)
    training = max(10.0, seconds - (kills + 1) * (start + SAVED_EVERY / 2))
    steps = [int(training * (1 - SECOND_PHASE) / vec), int(training * SECOND_PHASE / decoder)]
    often = max(1, int(SAVED_EVERY / decoder))
    words = [f"system.vec_steps={steps[0]}", f"system.decoder_steps={steps[1]}", f"checkpoint_every={often}"]
    return [*RUN, *words, f"validate_every={5 * often}", f"log_every={often}"]


def attack(work: Path, seed: int = 0, minutes: float = 60.0, every: tuple[float, float] = (60.0, 120.0)) -> Report:
    """Kills for `minutes`, `every` so many seconds (from, to); then the undisturbed run.

    On a machine that others load too it takes longer, and is killed as often until it is done.
    """
    arguments = sized(work, 60 * minutes, every)
    return soaked(work, arguments, seed, every, kills=int(12 * 60 * minutes / sum(every)), limit=600 * minutes)


def soaked(
    work: Path,
    arguments: list[str],
    seed: int,
    every: tuple[float, float],
    kills: int,
    limit: float = LIMIT,
    short: bool = False,
) -> Report:
    """At most so many kills, and no launch that lasts longer than `limit` seconds.

    short: what rises is no failure, since a process that has just started is still loading.
    """
    start, chance = time.monotonic(), random.Random(seed)
    for name in ("killed", "undisturbed"):
        shards(emptied(work / name) / "data")
    under_kills, alone = Held(), Held()
    draw = lambda: (chance.uniform(*every), chance.choice(VICTIMS[:3]))  # noqa: E731
    done, wrong = killed_until_done(work / "killed", arguments, kills, draw, under_kills.look, limit)
    lasted = time.monotonic() - start
    alone.began = time.monotonic()
    seconds = undisturbed(work / "undisturbed", arguments, alone.look, limit)
    report = Report("soak", 3, wrong, seconds=time.monotonic() - start)
    if not wrong and result(work / "killed" / "run") != result(work / "undisturbed" / "run"):
        report.failures.append(f"killed {done} times, it ended with other weights or another pipeline")
    report.numbers = {"kills": done, "seconds under kills": round(lasted), "seconds undisturbed": round(seconds)}
    for name, held in (("killed", under_kills), ("undisturbed", alone)):
        growth = held.growth()
        rising = ", ".join(f"{key} {growth[key][0]:+.1f}" for key in flat(growth))
        if rising and not short:
            report.failures.append(f"not flat in the second half, {name}: {rising}")
        shown = ", ".join(f"{key} {mean:.0f} {rise:+.1f}" for key, (rise, mean) in growth.items())
        report.numbers[f"held, {name}"] = shown
    return report
