"""The trainer in processes that are forked from one that has loaded everything: a start costs no imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

from helpers.launching import ROOT, free_port
from matplotlib.figure import Figure

# What a short run loads by its end. Processes are forked before any of them has started a thread.
LOADED = ["helpers.forked", "savae_dist.train", "savae_dist.load_config", "savae_dist.run.lifecycle"]
LOADED += ["einops._torch_specific", "matplotlib.pyplot", "torch._dynamo"]
SERVER = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "GLOO_SOCKET_IFNAME": "lo"}
SERVER |= {
    "PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker"
}  # tqdm's locks, of killed processes
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LOADED)

Around = Callable[[], AbstractContextManager[None]]  # made in the new process, and entered before it trains


@dataclass(frozen=True)
class Ended:
    """How the ranks of a launch ended (-9: killed by SIGKILL) and what they wrote to stdout and stderr."""

    codes: list[int]
    output: str


def train(
    arguments: list[str], folder: Path, *around: Around, seconds: float = 120.0, variables: dict[str, str] | None = None
) -> Ended:
    """Train in `folder`, one rank for each of `around` (one without); after `seconds` what still runs is killed."""
    ranks = around or (nullcontext,)
    port, logs = str(free_port()), [folder.with_name(f"{folder.name}.rank-{rank}.log") for rank in range(len(ranks))]
    _start_server()
    processes = []
    for rank, log in enumerate(logs):
        ours = dict(variables or {})
        if len(ranks) > 1:
            ours |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            ours |= {"WORLD_SIZE": str(len(ranks)), "LOCAL_WORLD_SIZE": str(len(ranks))}
        processes.append(CONTEXT.Process(target=_rank, args=(arguments, folder, log, ranks[rank], ours)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
    return Ended([int(process.exitcode or 0) for process in processes], "".join(log.read_text() for log in logs))


def _start_server() -> None:
    before = dict(os.environ)
    os.environ.update(SERVER)  # it is loaded with these, and its children inherit them
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def plain_figure() -> Figure:
    """With one empty plot, which takes a title."""
    figure = Figure()
    figure.subplots()
    return figure


def _rank(arguments: list[str], folder: Path, log: Path, around: Around, variables: dict[str, str]) -> None:
    from savae_dist.evaluation import report
    from savae_dist.train import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.chdir(folder)
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it, as do its children
    Figure.draw = lambda figure, renderer: None  # blank, and one only: they take most of a short run's time
    report.draw_figures = lambda *_: {"samples": plain_figure()}
    with around():
        code = main(arguments)
    sys.exit(code)
