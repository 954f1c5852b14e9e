"""How a table of numbers is written as text: encoding, separator, decimal sign, where the numbers begin, and names."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from savae_dist.data.packing.readers.signal import Unreadable

LOOKED_AT = 400  # lines
LINE = 1 << 20  # characters; a longer one is no table of recordings
IN_A_ROW = 5  # lines of numbers that show where the data begin
COMMENTS = ("#", "%", "//", "!")
SEPARATORS = ("\t", ";", ",", "|", " ")
MOMENT = re.compile(r"\d{1,4}[-/.:]\d{1,2}[-/.:]\d{1,4}[ T]?[\d:.,]*\s*([AaPp][Mm])?|\d{1,2}:\d{2}")
UNIT = re.compile(
    r"[\[(].*[\])]|[µmunkM]?(s|sec|V|g|Hz|N|Nm|Pa|bar|A|K|C|°C|m/s2|m/s\^2|m/s²|m/s|rpm|deg|rad|-|%)", re.I
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I)


@dataclass(frozen=True)
class Dialect:
    """first: lines before the first line of numbers. comment: the sign that begins one among the numbers, or None.

    names, units: of the columns, empty where the text has none.
    """

    encoding: str
    separator: str
    decimal: str
    first: int
    columns: int
    names: tuple[str, ...]
    units: tuple[str, ...]
    comment: str | None


def open_text(path: Path, encoding: str) -> IO[str]:
    """The text, of a plain or gzipped file; characters of another encoding become U+FFFD, which no number holds."""
    if path.suffix.lower() == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding=encoding, errors="replace", newline=""))
    return path.open(encoding=encoding, errors="replace", newline="")


def find_dialect(path: Path, texts: bool = False) -> Dialect:
    """The dialect of a table of numbers; Unreadable where no separator makes one of it.

    texts: most cells of a row may be text, as in a table that says of each row what it belongs to; it must then have
    names, for else lines such as `rate,12000` before a table would be taken for it.
    """
    encoding = _encoding(path)
    with open_text(path, encoding) as file:
        lines = [line.rstrip("\r\n") for line in _first_lines(file)]
    candidates = [(mark, sign) for mark in SEPARATORS for sign in ".," if mark != sign]
    found = [
        (first, columns, mark, sign)
        for mark, sign in candidates
        for first, columns in [_first_row(lines, mark, sign, texts)]
        if columns
    ]
    if not found:
        raise Unreadable("no table of numbers", _what_there_is(lines))
    # The most columns; of equals the earlier candidate. A single column is what is left where no separator fits.
    first, columns, mark, sign = max(found, key=lambda one: (one[1] > 1, -one[0], one[1]))
    names, units = _heading(lines[:first], mark, columns)
    begins = {line.lstrip()[:1] for line in lines}
    # Assume `#` if the first lines hold no comment: there may be one at the end of the file.
    comment = next((sign for sign in COMMENTS if sign in begins), None if any("#" in line for line in lines) else "#")
    return Dialect(encoding, mark, sign, first, columns, names, units, comment)


def cells_of(line: str, separator: str) -> list[str]:
    """The cells of a line without quotes and blanks; an empty one at its end is a trailing separator's."""
    if separator == " ":
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def is_number(cell: str, decimal: str = ".") -> bool:
    return NUMBER.fullmatch(cell.replace(",", ".") if decimal == "," and "." not in cell else cell) is not None


def _encoding(path: Path) -> str:
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        start = file.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _first_lines(file: IO[str]) -> Iterator[str]:
    for _ in range(LOOKED_AT):
        line = file.readline(LINE)
        if not line:
            return
        if len(line) == LINE:
            raise Unreadable("no table of numbers", f"a line is longer than {LINE} characters")
        yield line


def _first_row(lines: Sequence[str], mark: str, decimal: str, texts: bool) -> tuple[int, int]:
    """Where the numbers begin and how many columns they have; (0, 0) where they do not with this separator and sign."""
    rows = [
        (number, _widths(cells_of(line, mark), decimal, texts))
        for number, line in enumerate(lines)
        if line.strip() and not line.lstrip().startswith(COMMENTS)
    ]
    for at, (number, columns) in enumerate(rows):
        same = columns and all(width == columns for _, width in rows[at : at + IN_A_ROW])
        if same and (not texts or _heading(lines[:number], mark, columns)[0]):
            return number, columns
    return 0, 0


def _widths(cells: list[str], decimal: str, texts: bool) -> int:
    """How many columns a line of data has, 0 if it is none: numbers, moments and empty cells, one number at least."""
    if len(cells) > 1 and not cells[-1]:
        cells = cells[:-1]
    if not any(is_number(cell, decimal) for cell in cells):
        return 0
    text = [cell for cell in cells if cell and not is_number(cell, decimal) and not MOMENT.fullmatch(cell)]
    # Cells that start like a number, or hold a separator, are no text: the line has another dialect.
    odd = any(cell[0] in "+-.0123456789" or any(mark in cell for mark in "\t;,|") for cell in text)
    return 0 if odd or (len(text) * 2 >= len(cells) and not texts) else len(cells)


def _heading(lines: Sequence[str], mark: str, columns: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units: the lines right before the numbers that have as many cells, all of them text."""
    block: list[tuple[str, ...]] = []
    for line in reversed([line for line in lines if line.strip()]):
        comment = next((sign for sign in COMMENTS if line.lstrip().startswith(sign)), "")
        if comment and block:
            break
        cells = cells_of(line.lstrip().removeprefix(comment), mark)
        cells = cells[:columns] if len(cells) == columns + 1 and not cells[-1] else cells
        if len(cells) != columns or not any(cells) or any(is_number(cell) or is_number(cell, ",") for cell in cells):
            break
        block.append(tuple(cells))
        if comment:
            break
    if len(block) > 1 and all(_is_unit(cell) or not cell for cell in block[0]):
        return block[1], block[0]
    return (block[0], ()) if block else ((), ())


def _is_unit(cell: str) -> bool:
    """Also where its sign is of another encoding."""
    return any(UNIT.fullmatch(cell.replace("\ufffd", sign)) for sign in "²°µ")


def _what_there_is(lines: Sequence[str]) -> str:
    first = next((line for line in lines if line.strip()), "")
    listing = "path" in cells_of(first, ",")
    hint = "; if it is a list of recordings, give it in place of its folder" if listing else ""
    return f"its first line is {first[:60]!r}{hint}" if first else "it is empty"
