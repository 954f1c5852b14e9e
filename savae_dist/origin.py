"""How the samples of a set were made from files when they were packed; stored with the set and with every pipeline.

A run may make something else of them while it streams (`preprocess.Pictures`); a pipeline does both, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from savae_dist.untrusted import Check, flag, listed, nullable, number, one_of, record, text, whole

Resize = Literal["crop", "pad", "stretch"]
Mode = Literal["auto", "gray", "rgb"]
TimeAxis = Literal["longer", "first", "last"]
IrregularTimes = Literal["refuse", "interpolate", "ignore"]

DECODER = 1  # raised when `data.formats.resize` begins to make other pixels of the same file
MOST = 1 << 28  # elements of a sample, or of a hop


def check_decoder(version: int) -> None:
    """ValueError where pictures were read by another version of the decoder than this."""
    if version != DECODER:
        raise ValueError(f"pictures were read by decoder {version}, and this is {DECODER}: use that version")


@dataclass(frozen=True)
class PictureFiles:
    """Picture files to uint8 pixels, upright as their EXIF says and opaque on black.

    size: (height, width), to which they were brought by `resize`; None: all had one size, and others are refused.
    mode: `auto` keeps gray gray; a set that is packed has one of the others.
    range: the values that became 0 and 255, all others were clipped; None: all that a file's bits can hold.
    decoder: the version of the function that did it.
    """

    size: tuple[int, int] | None = None
    resize: Resize = "crop"
    mode: Mode = "auto"
    range: tuple[float, float] | None = None
    decoder: int = DECODER

    def __post_init__(self) -> None:
        check_decoder(self.decoder)

    def told(self) -> str:
        """In words, for people."""
        how = f"{self.resize} to {self.size[0]}x{self.size[1]}" if self.size else "of one size"
        spread = f", values {self.range[0]:g} to {self.range[1]:g}" if self.range else ""
        return f"picture files: upright, on black, {how}, {self.mode}{spread}"

    def of_shape(self, shape: tuple[int, ...]) -> PictureFiles:
        """The same, of a set whose samples are [h, w] or [h, w, 3]."""
        return replace(self, mode="gray" if len(shape) == 2 else "rgb")


@dataclass(frozen=True)
class Recordings:
    """Recordings to windows.

    length, hop: in samples at the set's rate. source_rate: in Hz, where a file does not say its own; 0: unknown.
    variables, time_axis, irregular_times: as `data.packing.readers.Choice`. read_as: the end of a name, `.csv`, by
    which files without a reader were read. id: the column that told the recordings of one table apart. own_reader:
    whether a function of the user's read them, which is not stored.
    """

    length: int
    hop: int
    source_rate: float = 0.0
    variables: tuple[str, ...] = ()
    time_axis: TimeAxis = "longer"
    irregular_times: IrregularTimes = "refuse"
    read_as: str = ""
    id: str = ""
    own_reader: bool = False

    def told(self) -> str:
        """In words, for people."""
        named = f", of {', '.join(self.variables)}" if self.variables else ""
        return f"recordings: windows of {self.length} samples, one every {self.hop}{named}"

    def of_shape(self, shape: tuple[int, ...]) -> Recordings:
        """The same: what a window holds does not depend on the set."""
        return self


Origin = PictureFiles | Recordings

PICTURE_FILES: Check = record(
    {
        "size": nullable(listed(whole(1, MOST), 2, 2)),
        "resize": one_of("crop", "pad", "stretch"),
        "mode": one_of("gray", "rgb"),
        "range": nullable(listed(number(), 2, 2)),
        "decoder": whole(),
    }
)
RECORDINGS: Check = record(
    {
        "length": whole(1, MOST),
        "hop": whole(1, MOST),
        "source_rate": number(0),
        "variables": listed(text(), most=4096),
        "time_axis": one_of("longer", "first", "last"),
        "irregular_times": one_of("refuse", "interpolate", "ignore"),
        "read_as": text(20),
        "id": text(),
        "own_reader": flag,
    }
)
KINDS: dict[str, tuple[type[PictureFiles] | type[Recordings], Check]] = {
    "image": (PictureFiles, PICTURE_FILES),
    "signal": (Recordings, RECORDINGS),
}


def check_origin(kind: str) -> Check:
    """The check of a stored origin of samples of that kind, `image` or `signal`."""
    return KINDS[kind][1]


def origin_of(kind: str, values: Mapping[str, Any] | None) -> Origin | None:
    """The origin out of the JSON that `asdict` became; None where none is stored."""
    if values is None:
        return None
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    frozen: dict[str, Any] = {**values, **lists}
    return KINDS[kind][0](**frozen)


def origin_entry(origin: Origin | None) -> dict[str, Any]:
    """`{"origin": ...}` for a file, empty where there is none, so that files without one stay as they were."""
    return {"origin": asdict(origin)} if origin is not None else {}
