"""Measure a trained pipeline on a set of shards, and draw its figures.

    python tools/evaluate.py PIPELINE [SHARDS] OUT [--judge PIPELINE] [--features PIPELINE] [--training SHARDS]
                             [--samples N] [--probes] [--nearest] [--seed N] [--gaming] [--mosaic]
                             [--attributes RULE [--view PIPELINE] ...] [--trainer FILE.py]
    python tools/evaluate.py PIPELINE SHARDS OUT --anomaly --healthy SHARDS [--false-alarms RATE] [--in-a-row N]

PIPELINE is a run, a saved or exported folder, or a Hub id. Without SHARDS a run is measured on what it held out, or on
its data.validation. OUT gets metrics.json, the figures (PNG and SVG) and a page of both, report.html; the numbers are
printed as well. A judge is a pipeline with encoder and classifier, trained independently on the same kind of data.
Each number comes with its bootstrap interval and the number of samples behind it.

--judge says whether classes change in reconstructions, and scores generated samples. Its features are also those in
which sets of samples are compared (Frechet and kernel distance, precision, recall, density, coverage), unless
--features names another pipeline with an encoder; that one needs no classifier and may take other sizes of images.
--probes fits simple classifiers to training codes, and --nearest finds the training sample nearest to each generated
one; both read --training once more (half a minute for 60,000 images). --mosaic lays images out by t-SNE of their codes
(a minute). --attributes draws the directions of the code that belong to attributes of samples; with --training it also
makes a table of linear SVMs that predict them from the codes, of this pipeline and of each --view. --gaming moves
samples until the pipeline's classifier changes its mind, and asks the judge whether the class has changed.

On signals, classes are also measured by recording and machine, beside baselines that are fitted to --training, or to
the training set of the run. Of the decoder are measured: the variance of its windows, their distance from training
windows, and the accuracy on real windows of classifiers that were trained on made ones.

With --anomaly the recordings of each machine of SHARDS are scored in the order of their names (numbers in them count
as numbers), beside baselines, and the alarms are reported; thresholds come from the machines of --healthy, one left out
at a time. Classes are not needed. Where SHARDS has recordings of the classes of --healthy, by name, and of others, it
is measured how well each score tells them apart; else each machine is taken as a life until failure.

Networks of one's own need the file that enters them, `--trainer FILE.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from savae_dist.data import Reader, Shards
from savae_dist.data.card import facts
from savae_dist.data.index.choice import Choice
from savae_dist.errors import ConfigError, UserError
from savae_dist.evaluation import report
from savae_dist.evaluation.classes import attribute_table
from savae_dist.evaluation.classes.attribute_svm import markdown
from savae_dist.evaluation.classes.attribute_table import CLASS, Opened
from savae_dist.evaluation.classes.attributes import LEAST
from savae_dist.evaluation.classes.gaming import measure_gaming
from savae_dist.evaluation.comparable import Asked, measure_all
from savae_dist.evaluation.features import sample_metrics
from savae_dist.evaluation.features.feature_view import FeatureView
from savae_dist.evaluation.figures import gallery
from savae_dist.evaluation.figures.gallery import Extras
from savae_dist.evaluation.signals import alarm_table, anomaly, by_recording, waveforms
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.files import read_object
from savae_dist.load_config import load
from savae_dist.pages import curves
from savae_dist.pages.evaluation import note_evaluation, write_evaluation
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.codes import SOURCES
from savae_dist.preprocess import normalise
from savae_dist.sets import open_shards
from savae_dist.systems.own import enter
from savae_dist.tool_command import as_typed, ended_by, tool_parser

ALARMS = "measure alarms on machines, and nothing else; a machine's recordings follow each other by name, 2 before 10"
TABLES = {"by_recording": by_recording.table, "decoder": waveforms.table}  # metrics of signals alone


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Measure a trained pipeline on shards, and draw its figures.")
    parser.add_argument("pipeline", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("shards", nargs="?", help="a folder made by make_shards.py, or a brace pattern of tars")
    parser.add_argument("out", type=Path, help="folder for metrics.json and the figures")
    parser.add_argument("--judge", help="a pipeline whose classifier judges reconstructions and samples")
    parser.add_argument("--features", help="compare sets by this pipeline's encoder; default: the judge's")
    parser.add_argument("--gaming", action="store_true", help="how little changes the class; needs --judge")
    parser.add_argument("--training", help="the training shards: adds the class-mean baselines")
    parser.add_argument("--samples", type=int, default=sample_metrics.DRAWN, help="how many to generate (%(default)s)")
    parser.add_argument("--probes", action="store_true", help="classifiers on codes, fitted to a part of --training")
    parser.add_argument("--nearest", action="store_true", help="distance of generated samples from all of --training")
    parser.add_argument("--seed", type=int, default=0, help="of the samples and intervals (%(default)s)")
    parser.add_argument("--mosaic", action="store_true", help="images laid out by their codes (t-SNE)")
    parser.add_argument("--attributes", help="as data.attributes, json:load,size; or `class`, to take the classes")
    parser.add_argument("--view", action="append", default=[], help="one more pipeline; its codes get SVMs, too")
    parser.add_argument("--sampler", choices=SOURCES, help="source of codes for samples; default: the first there is")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    parser.add_argument("--anomaly", action="store_true", help=ALARMS)
    parser.add_argument("--healthy", help="recordings of healthy machines, for the thresholds of --anomaly")
    parser.add_argument("--false-alarms", type=float, default=0.1, help="share of healthy machines (%(default)s)")
    parser.add_argument("--in-a-row", type=int, default=3, help="recordings that raise an alarm (%(default)s)")
    options = parser.parse_intermixed_args(argv)
    options.command = as_typed("evaluate", argv)
    if options.anomaly != bool(options.healthy):
        parser.error("--anomaly and --healthy need each other")
    if not 0 < options.false_alarms < 1 or options.in_a_row < 1:
        parser.error("--false-alarms must lie between 0 and 1, and --in-a-row be at least 1")
    if options.samples < 2:
        parser.error("--samples must be at least 2")
    if options.gaming and not options.judge:
        parser.error("--gaming needs --judge, which says whether the class has really changed")
    if (options.probes or options.nearest) and not options.training:
        parser.error("--probes and --nearest need --training")
    if options.view and not (options.attributes and options.training):
        parser.error("--view needs --attributes and --training")
    if options.attributes and not options.shards:
        parser.error("--attributes needs SHARDS to be named")
    return options


def validated(run: str, pipeline: Pipeline, own_classes: bool) -> Reader:
    """A reader of what this run was validated on."""
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{run} is no run's folder, so its validation set is not known: name shards")
    shards = open_shards(load([str(file)]).data)[1]
    if shards is None:
        raise ConfigError(f"{run} has neither data.validation nor data.hold_out: name shards")
    return report.reader_of(shards, pipeline, run, own_classes)


def trained(run: str, pipeline: Pipeline) -> Reader | None:
    """A reader of what this run was trained on, where it is one and its shards are still there."""
    file = Path(run) / "config.yaml"
    return report.reader_of(open_shards(load([str(file)]).data)[0], pipeline, run) if file.is_file() else None


def alarms(pipeline: Pipeline, reader: Reader, options: argparse.Namespace) -> None:
    """Score, print and write OUT/anomaly.json."""
    windows, healthy = (Windows.of(one) for one in (reader, report.open_reader(options.healthy, pipeline, True)))
    found = anomaly.detect(pipeline, windows, healthy, options.false_alarms, options.in_a_row)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "anomaly.json").write_text(json.dumps(found, indent=2) + "\n")
    paged(pipeline, reader, options)
    print(alarm_table.table(found))
    supported = next(iter(found.values()))["false_alarm_rate"]
    print(anomaly.told_rate(anomaly.check_machines(healthy), options.false_alarms, supported))


def seen_by(pipeline: Pipeline, judge: Pipeline | None, options: argparse.Namespace) -> FeatureView | None:
    """The features in which sets of samples are compared."""
    if options.features is None:
        return None if judge is None else FeatureView(judge, options.judge, pipeline.spec)  # measure_all checks it
    encoder = Pipeline.from_pretrained(options.features).to(pipeline.device)
    return FeatureView.of(encoder, options.features, pipeline.spec)


def of_signals(
    pipeline: Pipeline, reader: Reader, training: Reader | None, judge: Pipeline | None, options: argparse.Namespace
) -> dict[str, Any]:
    """The metrics of signals alone: classes by recording beside baselines, and the windows of the decoder."""
    if not pipeline.spec.classes:
        return {}
    found = {"by_recording": by_recording.compare(pipeline, reader, training)}
    if training is not None and {"encoder", "decoder"} <= pipeline.networks.keys():
        both = Windows.of(reader), Windows.of(training)
        found["decoder"] = waveforms.compare(pipeline, *both, judge, options.sampler, options.seed)
    return found


def paged(pipeline: Pipeline, reader: Reader, options: argparse.Namespace) -> None:
    """Write OUT/report.html, and OUT/about.json with what was measured."""
    note_evaluation(options.out, options.pipeline, pipeline.system, facts(reader.shards), options.command)
    write_evaluation(options.out)


def opened(source: str, options: argparse.Namespace) -> Opened:
    """A set with the attributes of --attributes; what is returned opens it with the preprocessing of a pipeline."""
    rule = None if options.attributes == CLASS else options.attributes
    shards = Shards.open(source, choice=Choice(attributes=rule))
    return lambda pipeline: report.reader_of(shards, pipeline, source, options.anomaly)


def where(source: str) -> str:
    """The run and the step of a pipeline, for titles; `source` itself if it is from no run."""
    folder, summary = Path(source).absolute(), read_object(Path(source) / "summary.json")
    if folder.parent.name == "checkpoints":
        return f"{folder.parents[1].name}, step {int(folder.name.rpartition('-')[2]):,}"
    return f"{folder.name}, step {sum(summary['steps'].values()):,}" if "steps" in summary else source


def attribute_svms(pipeline: Pipeline, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print and write OUT/attributes.md; what goes into metrics.json. Nothing unless it was asked for."""
    if not (options.attributes and options.training):
        return {}
    views = {name: Pipeline.from_pretrained(name).to(pipeline.device) for name in options.view}
    training, tested = (opened(source, options) for source in (options.training, options.shards))
    by_class, views = options.attributes == CLASS, {options.pipeline: pipeline, **views}
    found = attribute_table.measure(views, training, tested, by_class, options.seed)
    if not found:
        raise ConfigError(
            f"--attributes {options.attributes}: no attribute has {LEAST} samples with it and {LEAST} without"
        )
    sets = f"fitted to {options.training} and tested on {options.shards}"
    text = markdown(found, f"Linear SVMs on posterior means, {sets}; accuracy in %, with 95 % intervals.")
    (options.out / "attributes.md").write_text(text)
    print(text)
    return {"attributes": attribute_table.as_dict(found)}


def measured(pipeline: Pipeline, reader: Reader, judge: Pipeline | None, options: argparse.Namespace) -> None:
    """Measure, draw, print and write OUT/metrics.json."""
    training = report.open_reader(options.training, pipeline) if options.training else None
    if pipeline.spec.kind == "signal":
        training = training or trained(options.pipeline, pipeline)
    view = seen_by(pipeline, judge, options)
    asked = Asked(options.samples, options.sampler, view, options.probes, options.nearest, options.seed)
    found = measure_all(pipeline, reader, training, judge, asked)
    values = found.as_dict()
    drawn = report.first(reader)
    x, y = normalise(drawn.x, pipeline.spec), drawn.y
    if options.gaming and judge is not None:
        values |= measure_gaming(pipeline, judge, x, y)
    signals = of_signals(pipeline, reader, training, judge, options) if pipeline.spec.kind == "signal" else {}
    options.out.mkdir(parents=True, exist_ok=True)
    svms = attribute_svms(pipeline, options)
    (options.out / "metrics.json").write_text(json.dumps(values | signals | svms, indent=2) + "\n")
    known = attribute_table.attributes(reader, drawn.id.numpy(), y.numpy(), options.attributes == CLASS)
    extras = Extras(known, found.confusion, curves.read(Path(options.pipeline)), options.mosaic)
    figures = report.draw_figures(pipeline, x, y, worst=True) | gallery.draw(pipeline, x, y, extras)
    report.save_figures(figures, options.out / "figures", where(options.pipeline), ("png", "svg"))
    paged(pipeline, reader, options)
    print(report.table(values))
    for name, one in signals.items():
        print(TABLES[name](one))


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if options.trainer:
            enter(options.trainer)
        pipeline = Pipeline.from_pretrained(options.pipeline).to(device)
        judge = Pipeline.from_pretrained(options.judge).to(device) if options.judge else None
        if options.shards:
            reader = opened(options.shards, options)(pipeline)
        else:
            reader = validated(options.pipeline, pipeline, options.anomaly)
        if options.anomaly:
            alarms(pipeline, reader, options)
        else:
            measured(pipeline, reader, judge, options)
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "evaluate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
