"""A run from start to end; whatever ends it, its status.json says how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from savae_dist.config.identity import as_dict
from savae_dist.config.schema import RunConfig
from savae_dist.distributed import launch
from savae_dist.distributed.environment import is_main, leave_word, world_size
from savae_dist.distributed.flight import FOLDER, Flight
from savae_dist.distributed.folder_lock import FolderLock
from savae_dist.distributed.lost_peer import lost_peer
from savae_dist.distributed.ranks import Peers
from savae_dist.distributed.signals import Stop, has_peers
from savae_dist.distributed.strategy import asked_strategy
from savae_dist.errors import ConfigError, Preempted, RankLost, told_by
from savae_dist.run.output_folder import check_output
from savae_dist.run.process import Process
from savae_dist.run.reporting import start_report
from savae_dist.run.reporting.about import write_about
from savae_dist.run.reporting.status_file import Status
from savae_dist.run.retry import Retry
from savae_dist.run.run import Run
from savae_dist.run.setup import open_run

Report = Callable[[Run], str]


def train(config: RunConfig, report: Report | None = None, profile: int = 0) -> int:
    """Train, or continue, the run that `config` describes; its folder's status.json tells how it ended.

    report: what is told of the run, ready to train, in place of training it. profile: how many iterations of each phase
    are profiled.
    """
    check_output(Path(config.output or "."))
    folder_lock = FolderLock(Path(config.output or "."))
    status = Status(None if report else folder_lock, is_main())
    flight = Flight(None if report else folder_lock, status.where)

    def give_up(message: str, code: int) -> None:
        if code == Preempted.code:  # the ranks could not agree
            flight.write(message)
        status.end(Preempted.__name__, code, message, alone=True)
        print(f"savae_dist: {message}", file=sys.stderr)
        leave_word(code, message)

    with folder_lock, Stop(give_up, world_size(), launcher=launch.launcher(), flight=flight) as stop:
        try:
            stop.open()
            told_of = _train(config, report, folder_lock, status, stop, flight, profile)
        except BaseException as error:
            told = told_by(error)
            if told is not None:
                status.end(type(told).__name__, told.code, str(told), alone=not told.everywhere)
                raise told from (None if told is error else error)
            reason = lost_peer(error)
            if reason is not None and has_peers():
                raise rank_lost(status, reason, flight.lost(reason, error)) from error
            # Written by any rank that fails: its peers will only see that it is gone, not why.
            status.end("failed", 1, f"{type(error).__name__}: {error}", alone=True)
            raise
        status.end("done", 0)
    if report and is_main():
        print(told_of)
    return 0


def _train(
    config: RunConfig,
    report: Report | None,
    folder_lock: FolderLock,
    status: Status,
    stop: Stop,
    flight: Flight,
    profile: int,
) -> str:
    state = launch.start(config.precision, config.timeout, None if report else folder_lock.folder)
    peers = Peers(state, config.timeout)
    flight.join(peers)
    status.join(peers.launch, peers.node, peers.nodes)
    stop.join(peers)
    peers.check_alike(as_dict(config))
    peers.check_shared(folder_lock.folder)
    if not report:
        folder_lock.acquire(peers)
        if status.main and state.backend == "nccl":
            with status.side.spared(FOLDER):  # NCCL makes no folder for its files
                (folder_lock.folder / FOLDER).mkdir(exist_ok=True)
    process = Process(state, peers, stop, status, asked_strategy())
    retry: Retry | None = None
    while True:
        with opened(config, process, retry) as run:
            if report:
                return report(run)
            status.begin()
            run.tracker.say(start_report.describe(run))
            write_about(run)
            run.profile = profile
            retry = run.go()
        if retry is None:
            return ""


def rank_lost(status: Status, reason: str, known: str) -> RankLost:
    """The error to raise when a peer is gone, with the peer's own message and exit code if it left them.

    known: which rank it is, and where more is to be found.
    """
    lost = RankLost(f"a rank was lost at {status.where()} ({reason}){known and f'; {known}'}: run it again to go on")
    said = status.end(RankLost.__name__, RankLost.code, str(lost), alone=True)
    if said is not None and said["exit_code"] != RankLost.code:
        lost = RankLost(f"a rank was lost at {status.where()}; it said: {said['message']}")
        lost.code = said["exit_code"]
    return lost


@contextmanager
def opened(config: RunConfig, process: Process, retry: Retry | None = None) -> Iterator[Run]:
    """The run, ready to train; what does not fit together (a ValueError) is the configuration's fault."""
    try:
        run = open_run(config, process, retry)
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    try:
        yield run
    finally:
        run.saves.close()
        run.results.hub.close()
        run.tracker.close()
