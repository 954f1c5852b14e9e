"""Classes by their names: asked for, given with samples, and answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor


def name_of(number: int, names: Sequence[str]) -> str:
    """The name of a class; its number where it has none."""
    return names[number] if number < len(names) else str(number)


class Probabilities(np.ndarray):
    """float32 `[n, classes]`, and whatever numpy makes of it. class_names: of the columns, empty if they have none."""

    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: np.ndarray, class_names: Sequence[str]) -> Self:
        made = values.view(cls)
        made.class_names = tuple(class_names)
        return made

    def __array_finalize__(self, source: np.ndarray | None) -> None:
        if isinstance(source, Probabilities):
            self.class_names = source.class_names

    def names(self) -> list[str]:
        """The most probable class of each row of `[n, classes]`; its number where the classes have no names."""
        return [name_of(number, self.class_names) for number in np.asarray(self).argmax(axis=1).tolist()]


def known_label(label: int | str | None, labels: Sequence[int], names: Sequence[str]) -> int | None:
    """The number of a class that is asked for by number or name; ValueError unless it is one of `labels`."""
    number = names.index(label) if isinstance(label, str) and label in names else label
    if number is None or (not isinstance(number, str) and number in labels):
        return number
    told = [f"{one} ({names[one]})" if one < len(names) else str(one) for one in labels]
    known = f"there are some for {', '.join(told)}" if told else "leave label out"
    raise ValueError(f"label {label}: this pipeline has nothing to generate that class from; {known}")


def label_numbers(y: np.ndarray | Tensor | Sequence[str], names: Sequence[str]) -> Tensor:
    """int64 `[n]`, classes that are given by number or by name; ValueError for a name that there is not."""
    if isinstance(y, Tensor):
        return y.long()
    values = np.asarray(y)
    if values.dtype.kind != "U":
        return torch.from_numpy(values.astype(np.int64))
    numbers = {name: number for number, name in enumerate(names)}
    if unknown := {*values.tolist()} - numbers.keys():
        raise ValueError(f"label {min(unknown)}: the classes are {', '.join(names) or 'numbers'}")
    return torch.tensor([numbers[name] for name in values.tolist()])
