"""Measure the trainer.

`step`: beside a hand-written loop. `systems`: each system beside the others. `data`: beside other loaders. `scaling`:
beside processes that never talk. `gpu`: sizes and widths on one GPU within a time limit, as JSON and a page. `saves`:
how long training waits for checkpoints, written by a thread and synchronously. `hosts`: what `--plan` predicts of two
hosts with slow cables between them, and what they then do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from savae_dist.benchmarks import comparisons, gpu_check, scaling, two_hosts
from savae_dist.benchmarks import saves as saving
from savae_dist.benchmarks.setting import PAPER, in_numbers
from savae_dist.errors import UserError
from savae_dist.load_config import load
from savae_dist.sweeps.trials import named
from savae_dist.systems import SAVAE
from savae_dist.tool_command import tool_command, tool_parser

# As in the hand-written loop: these steps have no end for a schedule to lead to.
CONSTANT = "optimizers.vec.schedule=constant"


def step(a: argparse.Namespace) -> Iterator[str]:
    keys = {"networks.width": a.width, "data.batch_size": a.batch, "system.beta": a.beta, "system.gamma": a.gamma}
    asked = [f"{key}={value}" for key, value in keys.items()]
    config = in_numbers(load([*PAPER, *asked, CONSTANT]))
    phases = scaling.phases_named(config, a.phase)
    about = ", ".join(asked)
    return comparisons.beside_bare_loop(
        config, phases, about, a.rounds, a.seconds, a.threads, shards=a.shards, folder=a.hand_written
    )


def systems(a: argparse.Namespace) -> Iterator[str]:
    _, starts = named(a.config)
    configs = {name: in_numbers(load([*words, *a.changes])) for name, words in starts.items()}
    return comparisons.side_by_side(configs, a.rounds, a.seconds, a.threads)


def scale(a: argparse.Namespace) -> Iterator[str]:
    """Measure, if this process is a rank; else start the ranks, which measure and print."""
    asked = [f"networks.width={a.width}", f"data.batch_size={a.batch}", *a.changes]
    config = in_numbers(load(asked))
    phases = scaling.phases_named(config, a.phase)
    if "RANK" in os.environ:
        return scaling.one_and_several(config, phases, ", ".join(asked), a.rounds, a.seconds)
    options = {"width": a.width, "batch": a.batch, "rounds": a.rounds, "seconds": a.seconds, "phase": a.phase}
    words = [*(f"--{name}={value}" for name, value in options.items()), *a.changes]
    scaling.start_ranks([*tool_command("benchmark"), "scaling", *words], a.processes)
    return iter(())


def gpu(a: argparse.Namespace) -> Iterator[str]:
    config = load([*PAPER, f"data.batch_size={a.batch}", "precision=bf16", CONSTANT])
    return gpu_check.check(config, a.out, a.device, a.limit, a.seconds)


def saves(a: argparse.Namespace) -> Iterator[str]:
    return saving.report([int(size) for size in a.sizes.split(",")], a.rounds, a.folder)


def hosts(a: argparse.Namespace) -> Iterator[str]:
    asked = [f"networks.width={a.width}", f"data.batch_size={a.batch}", "networks.norm=group", *a.changes]
    return two_hosts.compare(asked, [float(speed) for speed in a.gbit.split(",")], a.seconds, a.rounds)


def data(a: argparse.Namespace) -> Iterator[str]:
    if a.source == "photos":
        keys = {"networks.width": a.width, "data.batch_size": a.batch, "data.workers": a.workers or 2}
        config = load([f"{key}={value}" for key, value in keys.items()])
        sides = [int(side) for side in a.sizes.split(",")]
        return comparisons.photographs(config, a.samples, a.rounds, a.seconds, sides, a.photos, a.store)
    return comparisons.beside_other_loaders(a.batch, a.samples, a.workers, a.rounds, a.seconds)


def common_options(
    rounds: int, seconds: float, *, networks: bool = False, threads: bool = False
) -> argparse.ArgumentParser:
    """The options of every measurement, and those for networks or torch's threads where asked."""
    parser = argparse.ArgumentParser(add_help=False)
    if networks:
        parser.add_argument("--width", type=int, default=16, help="of the networks")
        parser.add_argument("--batch", type=int, default=128, help="samples per optimiser step, over all processes")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often the loops take turns")
    parser.add_argument("--seconds", type=float, default=seconds, help="per loop and round")
    if threads:
        parser.add_argument("--threads", type=int, default=2, help="of torch")
    return parser


def save_options(what: Any) -> None:
    each = what.add_parser("saves", help="how long training waits for a checkpoint, written by a thread and waited for")
    each.add_argument("--sizes", default="10,100,1000", metavar="N,N", help="sizes of the state, in MB")
    each.add_argument("--rounds", type=int, default=3, help="saves of each size and kind, after a first one")
    each.add_argument("--folder", type=Path, help="where to save; default: a temporary folder")
    each.set_defaults(measure=saves)


def host_options(what: Any) -> None:
    common = common_options(2, 20.0, networks=True)
    slow = what.add_parser(
        "hosts",
        parents=[common],
        help="what --plan predicts of two hosts with slow cables between them, and what they do",
    )
    slow.add_argument("--gbit", default="0.1,1,10", metavar="N,N", help="per second, between the two")
    slow.add_argument("changes", nargs="*", metavar="key=value", help="of the demo's configuration")
    slow.set_defaults(measure=hosts)


def data_options(what: Any) -> None:
    common = common_options(5, 1.0)
    batches = what.add_parser(
        "data", parents=[common], help="samples per second, beside the webdataset and datasets libraries"
    )
    batches.add_argument("--batch", type=int, default=256, help="samples per batch, and per block where packed")
    batches.add_argument("--samples", type=int, default=16_384, help="per set, a multiple of 4 batches")
    batches.add_argument(
        "--workers", type=int, default=0, help="processes; CPU times leave theirs out; photos: none, and 2 or so many"
    )
    batches.add_argument(
        "--source", choices=("sets", "photos"), default="sets", help="small samples as packed, or JPEGs to be resized"
    )
    batches.add_argument("--sizes", default="64,128,256", metavar="N,N", help="to which photos are brought")
    batches.add_argument("--photos", type=Path, metavar="FOLDER", help="pictures to cut them from; else random ones")
    batches.add_argument("--store", metavar="URL", help="photos: a folder to put them into and read them from once")
    batches.add_argument("--width", type=int, default=16, help="of the networks that wait for photos")
    batches.set_defaults(measure=data)


def gpu_options(what: Any) -> None:
    device = what.add_parser("gpu", help="sizes and widths on one GPU, the most telling first, as JSON and a page")
    device.add_argument("out", type=Path, metavar="OUT", help="folder for gpu.json and gpu.md")
    device.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device.add_argument("--limit", type=float, default=450.0, help="seconds after which measuring is stopped")
    device.add_argument("--seconds", type=float, default=2.0, help="per loop")
    device.add_argument("--batch", type=int, default=128, help="samples per optimiser step")
    device.set_defaults(measure=gpu)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(prog="benchmark", description="Measure the trainer on this machine.")
    what = parser.add_subparsers(required=True, metavar="WHAT")

    common = common_options(5, 2.0, networks=True, threads=True)
    steps = what.add_parser(
        "step", parents=[common], help="iterations of both SAVAE phases, beside a hand-written loop"
    )
    steps.add_argument("--phase", choices=("vec", "decoder", "both"), default="both")
    steps.add_argument("--beta", type=float, default=SAVAE.beta, help="adversarial weight")
    steps.add_argument("--gamma", type=float, default=SAVAE.gamma, help="latent weight")
    steps.add_argument("--shards", metavar="FOLDER", help="packed samples; 28x28 noise if left out")
    steps.add_argument("--hand-written", type=Path, metavar="FOLDER", help="time the loops of its raw_torch.py too")
    steps.set_defaults(measure=step)

    common = common_options(5, 2.0, threads=True)
    each = what.add_parser("systems", parents=[common], help="an iteration of each of several systems, on 28x28 noise")
    each.add_argument("config", help="presets or files, separated by commas, or a comparison, as sweep.py takes them")
    each.add_argument("changes", nargs="*", metavar="key=value", help="of all their configurations")
    each.set_defaults(measure=systems)

    common = common_options(8, 3.0, networks=True)
    several = what.add_parser(
        "scaling", parents=[common], help="1 and several processes, beside processes that never talk"
    )
    several.add_argument("--processes", type=int, default=2, help="started here; a launcher's ranks are taken as given")
    several.add_argument("--phase", default="both", help="vec, decoder or both, or a phase of another system")
    several.add_argument("changes", nargs="*", metavar="key=value", help="of the demo's configuration")
    several.set_defaults(measure=scale)

    gpu_options(what)
    save_options(what)
    host_options(what)
    data_options(what)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        for line in arguments.measure(arguments):
            print(line, flush=True)
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
