"""Rates at which the parts of a rolling bearing strike a fault, from geometry and speed (Randall and Antoni 2011)."""

from __future__ import annotations

import math
from typing import NamedTuple


class Bearing(NamedTuple):
    """Number of rolling elements, their diameter, the pitch diameter (both in one unit), and the contact angle."""

    elements: int
    element_diameter: float
    pitch_diameter: float
    contact_angle: float = 0.0


# As Case Western Reserve University gives them, in inch.
BEARINGS = {"6203": Bearing(8, 0.2656, 1.122), "6205": Bearing(9, 0.3126, 1.537)}


def fault_frequencies(bearing: Bearing, rpm: float) -> dict[str, float]:
    """In Hz, for a turning inner race: BPFO and BPFI of the races, BSF of an element's spin, FTF of the cage.

    An element strikes both races in a turn of its own, so its fault shows at twice BSF.
    """
    turns = rpm / 60
    ratio = bearing.element_diameter / bearing.pitch_diameter * math.cos(math.radians(bearing.contact_angle))
    return {
        "BPFO": bearing.elements / 2 * turns * (1 - ratio),
        "BPFI": bearing.elements / 2 * turns * (1 + ratio),
        "BSF": bearing.pitch_diameter / (2 * bearing.element_diameter) * turns * (1 - ratio**2),
        "FTF": turns / 2 * (1 - ratio),
    }
