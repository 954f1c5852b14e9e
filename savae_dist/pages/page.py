"""A page is one file: its style, pictures and curves are inside, it has no script, and nothing is fetched for it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from savae_dist.colours import COLOURS
from savae_dist.files import write_text
from savae_dist.pages.markdown import as_html

REPORT = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
BAD = "worst reconstructions"
LARGEST = 20_000_000  # most bytes of a picture; of a larger one only the name is shown


@dataclass(frozen=True)
class Picture:
    """name: of its file, without the end, as words. data: its URI; "" where it is too large."""

    name: str
    data: str


@cache
def environment() -> Environment:
    """Templates in which every value is escaped: names of classes and files come from others."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["duration"] = duration
    made.filters["markdown"] = as_html
    return made


def render(template: str, **values: Any) -> str:
    """The page that a template makes of these values."""
    return environment().get_template(template).render(colours=COLOURS, **values)


def write(path: Path, template: str, **values: Any) -> Path:
    """Write that page, whole or not at all; OSError where it cannot be."""
    write_text(path, render(template, **values))
    return path


def pictures(folder: Path, names: Iterable[str] = ("*",)) -> list[Picture]:
    """The PNG of a folder whose names fit these patterns, in the order of the patterns; none if there is no folder."""
    paths = dict.fromkeys(path for name in names for path in sorted(folder.glob(f"{name}.png")))
    return [picture(path) for path in paths if path.is_file()]


def figures(folder: Path) -> dict[str, list[Picture]]:
    """What a run or an evaluation drew, as `parts.figures` shows it: the bad samples apart from the other figures."""
    shown = pictures(folder / "figures")
    return {
        "bad": [one for one in shown if one.name == BAD],
        "figures": [one for one in shown if one.name != BAD],
    }


def picture(path: Path) -> Picture:
    """One picture; OSError if it cannot be read."""
    name, small = path.stem.replace("_", " "), path.stat().st_size <= LARGEST
    data = base64.b64encode(path.read_bytes()).decode("ascii") if small else ""
    return Picture(name, f"data:{TYPES[path.suffix]};base64,{data}" if data else "")


def number(value: Any) -> str:
    """A number to four digits, a count with its thousands apart, a dash for nothing, and all else as it is."""
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(number(one) for one in value) or "–"
    return str(value)


def duration(seconds: float | None) -> str:
    """`42 s`, `3.5 min`, `1.25 h`."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"
