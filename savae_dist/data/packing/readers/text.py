"""Tables of numbers in text, as instruments and spreadsheets write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from savae_dist.data.packing.readers.clocks import Column
from savae_dist.data.packing.readers.dialect import Dialect, find_dialect, is_number, open_text
from savae_dist.data.packing.readers.signal import Choice, Signal, Unreadable, undecodable
from savae_dist.data.packing.readers.table import from_columns, kept


def read_text(path: Path, choice: Choice) -> Signal:
    """One row per sample, one column per channel, with or without a line of names.

    Read are: tabs, semicolons, commas, bars or blanks between the cells; decimal points or commas; quotes; comments and
    other lines before the numbers; a line of units; UTF-8 or UTF-16; gzip. An empty cell is not a number, so only the
    windows that hold it are unusable. Columns that tell the time are no channels, and give the sampling rate.
    """
    columns, named = kept(long_columns, path) if choice.recording else text_columns(path)
    return from_columns(columns, choice, path.stem, named)


def long_columns(path: Path) -> tuple[list[Column], bool]:
    """The same of a table that holds several recordings: most of its columns may be text."""
    return text_columns(path, texts=True)


def text_columns(path: Path, texts: bool = False) -> tuple[list[Column], bool]:
    """All columns, and whether their names are the file's own."""
    dialect = find_dialect(path, texts)
    return read_columns(path, dialect), bool(dialect.names)


def read_columns(path: Path, dialect: Dialect) -> list[Column]:
    """All columns of the table: numbers as float64 or int64, text as it stands."""
    import pandas as pd  # here: it takes half a second to import

    spaced = dialect.separator == " "
    with open_text(path, dialect.encoding) as file:
        for _ in range(dialect.first):
            file.readline()
        try:
            frame = pd.read_csv(
                file,
                sep=r"\s+" if spaced else dialect.separator,
                decimal=dialect.decimal,
                header=None,
                names=None if spaced else range(dialect.columns + 1),  # one more: a trailing separator's
                comment=dialect.comment,
                skipinitialspace=True,
                low_memory=False,
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise undecodable(error) from error
    held = frame.dropna(axis="columns", how="all") if not spaced else frame
    if len(held.columns) > dialect.columns:
        extra = frame[dialect.columns].first_valid_index()
        raise Unreadable("undecodable", f"line {_line(dialect, extra)} has more than {dialect.columns} columns")
    columns = []
    for place in range(min(dialect.columns, len(frame.columns))):
        name, unit = (part[place] if part else "" for part in (dialect.names, dialect.units))
        columns.append(Column(name, unit, _values(frame[place].to_numpy(), dialect, name or f"column {place + 1}")))
    return columns


def _values(values: np.ndarray, dialect: Dialect, name: str) -> np.ndarray:
    """Numbers or text; Unreadable where a column of numbers holds a cell that is none."""
    if values.dtype.kind in "fiub":
        return values
    text = np.array(["" if value != value else str(value) for value in values])
    wrong = np.array([bool(cell) and not is_number(cell.strip(), dialect.decimal) for cell in text])
    if wrong.mean() < 0.5:
        row = int(wrong.argmax())
        raise Unreadable("undecodable", f"line {_line(dialect, row)}, {name}: {text[row][:40]!r} is no number")
    return text


def _line(dialect: Dialect, row: int) -> int:
    """The line of a row, counted from 1, where no line among the numbers is empty."""
    return dialect.first + 1 + row
