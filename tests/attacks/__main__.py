"""Attack the trainer, the long way: python tests/attacks ATTACK [--seed 0] [--count N] [--minutes 60] ...

What an attack does is told by the first lines of its file. It ends with a table, and with 1 if something did not hold.
The short forms run with the other tests.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from attacks import file_kills, power_cuts, random_kills, signals, soak  # noqa: E402

MODULES = (file_kills, power_cuts, random_kills, signals, soak)
ATTACKS = {module.__name__.rpartition(".")[2]: module.attack for module in MODULES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/attacks", description="Attack the trainer, the long way.")
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--seed", type=int, help="of all that is drawn")
    parser.add_argument("--count", type=int, help="how many kills, cuts or signals")
    parser.add_argument("--only", metavar="CASE", help="one case, as a report names it")
    parser.add_argument("--jobs", type=int, help="cases that are tried at the same time")
    parser.add_argument("--minutes", type=float, help="soak: of training under kills; file_kills: at most")
    parser.add_argument("--every", type=float, nargs=2, metavar=("LOW", "HIGH"), help="soak: seconds between kills")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder, which is removed")
    parser.add_argument("--json", type=Path, help="write the report to this file too")
    options = parser.parse_args()
    attack = ATTACKS[options.attack]
    given = {name: value for name, value in vars(options).items() if value is not None}
    chosen = {name: value for name, value in given.items() if name not in ("attack", "folder", "json")}
    if unknown := chosen.keys() - inspect.signature(attack).parameters.keys():
        parser.error(f"{options.attack} takes no --{min(unknown)}")
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        report = attack(options.folder or Path(folder), **chosen)
    print(report)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(report), indent=1))
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
