"""One HTML page of a run, an evaluation or a sweep, or of several runs side by side.

    python tools/report.py RUN [--out FILE.html]
    python tools/report.py RUN RUN... [--out FILE.html]

RUN is the folder of a run: finished, under way or interrupted. A single RUN may also be a folder that `evaluate` or
`sweep` wrote. The page of one folder is its `report.html`. The page of several runs is `comparison.html` in the current
folder, with the keys and the numbers in which they differ. A page is one file that loads nothing from elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import UserError
from savae_dist.pages.comparison import write_comparison
from savae_dist.pages.evaluation import is_evaluation, write_evaluation
from savae_dist.pages.run import write_run
from savae_dist.pages.sweep import is_sweep, write_sweep
from savae_dist.tool_command import ended_by, tool_parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = tool_parser(description="One HTML page of a run, or of several side by side.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, an evaluation or a sweep")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="default: report.html in the folder; comparison.html here"
    )
    options = parser.parse_intermixed_args(argv)
    first = options.runs[0]
    try:
        if len(options.runs) > 1:
            page = write_comparison(options.runs, options.out or Path("comparison.html"))
        else:
            kinds = {write_sweep: is_sweep, write_evaluation: is_evaluation}
            page = next((make for make, fits in kinds.items() if fits(first)), write_run)(first, options.out)
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "report")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
