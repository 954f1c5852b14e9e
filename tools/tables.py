"""The tables in README.md and docs/ that say what the code says: checked, or written anew.

    python tools/tables.py [--write]

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being one of `TABLES`. Without `--write` the exit
code is 1 if one is not what the code gives.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from inspect import getfile
from pathlib import Path
from types import MethodType

from savae_dist.config.arguments import PRESET_FOLDERS
from savae_dist.data.packing.readers import READERS, Reader
from savae_dist.load_config import load
from savae_dist.systems import SYSTEMS
from savae_dist.systems.papers import Published
from savae_dist.systems.phases import Update
from savae_dist.tool_command import tool_parser

ROOT = Path(__file__).resolve().parents[1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def codes(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def systems() -> str:
    """A row for each class, with the names that it goes by and the presets of these."""
    presets: dict[str, list[str]] = {name: [] for name in SYSTEMS}
    for path in sorted(PRESET_FOLDERS[0].glob("*.yaml")):
        presets[load([str(path)]).system.name].append(path.stem)
    rows = []
    for kind, system in {type(system): system for system in SYSTEMS.values()}.items():
        assert isinstance(system, Published)
        names = [name for name, other in SYSTEMS.items() if type(other) is kind]
        own = [preset for name in names for preset in presets[name]]
        rows.append([codes(names), system.summary, system.paper, f"`{Path(getfile(kind)).name}`", codes(own)])
    return table(["`system.name`", "what", "paper", "file", "presets"], rows)


def readers() -> str:
    """A row for each reader of recordings, with the ends of names that it reads."""
    kinds: dict[Reader, list[str]] = {}
    for end, read in READERS.items():
        kinds.setdefault(read, []).append(end)
    rows = [[codes(ends), " ".join((read.__doc__ or "").split("\n\n")[0].split())] for read, ends in kinds.items()]
    return table(["name ends in", "what is read"], rows)


def updates() -> str:
    """A row for each update, in the order of an iteration; systems with the same updates share their rows."""
    found: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for name, system in SYSTEMS.items():
        rows = [(phase, update) for phase in system.phases() for update in phase.updates]
        key = tuple((phase.name, phase.batches, *described(update)) for phase, update in rows)
        found.setdefault(key, []).append(name)
    return table(
        ["`system.name`", "phase", "batches", "update", "trains", "losses, stepped in this order"],
        [[codes(names), *row] for key, names in found.items() for row in key],
    )


def described(update: Update) -> tuple[str, str, str]:
    """Its name with the times that it is made in an iteration, the networks that it trains, and its losses."""
    times = f" x {update.repeats}" if update.repeats > 1 else ""
    losses = [loss.__func__.__name__ for loss in update.losses if isinstance(loss, MethodType)]
    return f"`{update.name}`{times}", ", ".join(update.trains), codes(losses)


TABLES: dict[str, Callable[[], str]] = {"systems": systems, "updates": updates, "readers": readers}


def renewed(text: str) -> str:
    """A page with its tables as the code gives them."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if block.search(text):
            made = make()
            text = block.sub(lambda found, made=made: found[1] + made + found[2], text)  # type: ignore[misc]
    return text


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = tool_parser(description="Check the tables in README.md and docs/ against the code.")
    parser.add_argument("--write", action="store_true", help="write them anew")
    options = parser.parse_args(argv)
    pages = {path: path.read_text() for path in (root / "README.md", *sorted((root / "docs").glob("*.md")))}
    stale = {path: new for path, old in pages.items() if (new := renewed(old)) != old}
    for path, new in stale.items():
        if options.write:
            path.write_text(new)
        else:
            page = path.relative_to(root)
            print(f"tables: {page} does not say what the code says: run this with --write", file=sys.stderr)
    return 1 if stale and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
