"""Watch recordings with a trained pipeline: a table, a picture and a verdict each; exit code 1 on an alarm.

    python tools/monitor.py PIPELINE FILE... --healthy SHARDS --out FOLDER [--false-alarms RATE] [--hop N]
                            [--variable NAME] [--source-rate HZ] [--bearing 6205 --rpm 1797 | --bpfo HZ --bpfi HZ ...]

Any file that make_shards.py recordings reads is taken, of any length, at the rate that the pipeline was trained at or
another. The threshold is of a recording's mean score, from machines of --healthy, one left out at a time. 0: no alarm,
1: an alarm, 2 and above: an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.data.packing.readers import kind_of, read_recording
from savae_dist.data.packing.readers.signal import Choice
from savae_dist.data.packing.resampling import Resampled
from savae_dist.errors import BadSample, ConfigError, UserError
from savae_dist.evaluation import report
from savae_dist.evaluation.figures import figures
from savae_dist.evaluation.signals.anomaly import check_machines, told_rate
from savae_dist.evaluation.signals.bearings import BEARINGS, fault_frequencies
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.evaluation.signals.monitoring import Alarm, draw, most_probable, watch
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.tool_command import ended_by, tool_parser

ALARM = 1  # exit code
BELOW = "; far below every healthy one: was the pipeline trained on such faults? (docs/signals.md)"
LINES = ("bpfo", "bpfi", "bsf", "ftf")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Watch recordings with a trained pipeline; exit code 1 on an alarm.")
    parser.add_argument("pipeline", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("files", nargs="+", type=Path, help="recordings, as make_shards.py recordings reads them")
    parser.add_argument("--healthy", required=True, help="shards of recordings of healthy machines, for the threshold")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.csv and NAME.png of each recording")
    parser.add_argument(
        "--false-alarms", type=float, default=0.1, help="share of healthy machines that may raise one (%(default)s)"
    )
    parser.add_argument("--hop", type=int, help="samples from window to window; default: the length of a window")
    parser.add_argument("--variable", action="append", help="channel of a file that holds several; once for each")
    parser.add_argument("--source-rate", type=float, default=0.0, help="in Hz, for files that do not state theirs")
    parser.add_argument(
        "--bearing", choices=sorted(BEARINGS), help="draw the lines of its fault frequencies; needs --rpm"
    )
    parser.add_argument("--rpm", type=float, help="shaft speed in revolutions per minute; draws sidebands, too")
    for line in LINES:
        parser.add_argument(f"--{line}", type=float, help="in Hz, in place of --bearing")
    options = parser.parse_args(argv)
    if options.bearing and not options.rpm:
        parser.error("--bearing needs --rpm")
    if not 0 < options.false_alarms < 1 or (options.hop is not None and options.hop < 1):
        parser.error("--false-alarms must lie between 0 and 1, and --hop be at least 1")
    return options


def lines_of(options: argparse.Namespace) -> dict[str, float]:
    """The frequencies that are drawn, by name."""
    known = fault_frequencies(BEARINGS[options.bearing], options.rpm) if options.bearing else {}
    given = zip(LINES, (options.bpfo, options.bpfi, options.bsf, options.ftf), strict=True)
    return known | {name.upper(): value for name, value in given if value}


def watched(path: Path, pipeline: Pipeline, alarm: Alarm, options: argparse.Namespace) -> bool:
    """Write the table and the picture of a recording, print its verdict, and say whether it is an alarm."""
    choice = Choice(variables=tuple(options.variable or ()))
    try:
        with read_recording(path, choice, kind_of(path.name)) as signal:
            rate, own = pipeline.spec.rate, signal.rate or options.source_rate
            if rate and not own:
                raise BadSample("sampling rate unknown, give --source-rate")
            at_rate = Resampled(signal, own, rate) if rate else signal
            hop = options.hop or pipeline.spec.shape[-1]
            found = watch(pipeline, at_rate, hop, alarm, options.out / f"{path.stem}.csv")
            over = found.score > alarm.limit
            known = most_probable(pipeline, found)
            text = f"{path.name}: {alarm.verdict(found.score)}"
            text += f", class {known}" if known else ""
            turns = (options.rpm or 0.0) / 60
            picture = draw(found, at_rate, rate or 1.0, alarm, text, lines_of(options), turns)
            figures.save(picture, options.out / f"{path.stem}.png")
            print(text + BELOW * alarm.far_below(found.score))
    except BadSample as error:
        raise ConfigError(f"{path}: {error}") from error
    return over


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        pipeline = Pipeline.from_pretrained(options.pipeline)
        if pipeline.spec.kind != "signal":
            raise ConfigError(f"{options.pipeline} was trained on {pipeline.spec.kind}s, and this watches signals")
        healthy = Windows.of(report.open_reader(options.healthy, pipeline, own_classes=True))
        alarm = Alarm.of(pipeline, healthy, options.false_alarms)
        print(told_rate(check_machines(healthy), options.false_alarms, alarm.rate))
        options.out.mkdir(parents=True, exist_ok=True)
        alarms = [watched(path, pipeline, alarm, options) for path in options.files]
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "monitor")
    return ALARM if any(alarms) else 0


if __name__ == "__main__":
    sys.exit(main())
