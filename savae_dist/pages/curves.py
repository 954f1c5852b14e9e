"""The curves that a run recorded for TensorBoard, over all its launches, and how long each launch took."""

from __future__ import annotations

import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

Curves = dict[str, tuple[list[int], list[float]]]  # tag -> (steps, values)

EVENTS = re.compile(r"events\.out\.tfevents\.(\d{10})\..*")  # the digits: the second at which the launch began


def read(run: Path) -> Curves:
    """All scalars of a run; none if it has not begun. Of steps that a later launch repeated, the later values."""
    if not (run / "tensorboard").is_dir():
        return {}
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    series = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: ([one.step for one in points], [one.value for one in points]) for tag, points in series.items()}


def launches(run: Path) -> list[float]:
    """The seconds from the start of each launch that recorded something to its last record."""
    found = []
    for path in sorted((run / "tensorboard").glob("*")):
        if began := EVENTS.fullmatch(path.name):
            last = max((event.wall_time for event in EventFileLoader(str(path)).Load()), default=0.0)
            found.append(max(0.0, last - int(began[1])))
    return found
