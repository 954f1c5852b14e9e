"""National Instruments' `.tdms` files: channels by group and name."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from savae_dist.data.packing.readers.signal import (
    Choice,
    OnDisk,
    Part,
    Signal,
    Variable,
    chosen,
    not_asked_for,
    not_installed,
)

INCREMENT = "wf_increment"  # seconds from value to value


def read_tdms(path: Path, choice: Choice) -> Signal:
    """Channels `group.name`; without a choice all of them. The rate is theirs where they share one."""
    try:
        from nptdms import TdmsFile
    except ModuleNotFoundError as error:
        raise not_installed(path, "npTDMS") from error
    with ExitStack() as stack:
        file = stack.enter_context(TdmsFile.open(path))
        channels = {f"{group.name}.{one.name}": one for group in file.groups() for one in group.channels() if len(one)}
        variables = [Variable(name, _values(one)) for name, one in channels.items() if one.dtype.kind in "fiub"]
        text = tuple(f"{name} (text or times)" for name in channels if name not in {one.name for one in variables})
        taken = chosen(variables, choice.variables or ("*",), path.stem)
        increments = {float(channels[one.name].properties.get(INCREMENT, 0)) for one in taken}
        step = increments.pop() if len(increments) == 1 else 0.0
        parts = [Part((one.name,), one.values) for one in taken]
        left_out = (*not_asked_for(variables, taken), *text)
        return Signal(parts, float(f"{1 / step:.9g}") if step > 0 else 0.0, left_out, files=stack.pop_all())


def _values(channel: Any) -> OnDisk:
    return OnDisk((len(channel),), channel.dtype, lambda start, stop: channel.read_data(start, stop - start))
