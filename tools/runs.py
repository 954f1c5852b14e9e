"""The runs in a folder: outcome, step, best metric and hours of each, as a table.

    python tools/runs.py FOLDER [--by METRIC]

Runs are found at any depth. The metric is that of `keep_best`, with the value and the step of the best validation; for
a run without `keep_best` it is a metric of the last validation. Runs are sorted by name, or with --by by a metric, the
best first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import UserError
from savae_dist.pages.listing import found, lines
from savae_dist.tool_command import ended_by, tool_parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = tool_parser(description="The runs in a folder, as a table.")
    parser.add_argument("folder", type=Path, help="with runs below it, at any depth")
    parser.add_argument("--by", default="", metavar="METRIC", help="sort by it, the best first")
    options = parser.parse_args(argv)
    try:
        print("\n".join(lines(found(options.folder), options.by)))
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
