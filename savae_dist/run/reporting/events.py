"""TensorBoard's file of events, written at once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from io import BytesIO
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

NUMBERS = count()  # part of a file's name: a process may make two files in one second


class EventFile:
    """A file of curves and pictures, made at its first record.

    torch's SummaryWriter leaves the writing to a thread: an error is printed there as a traceback and raised at some
    later call, after which nothing can be written any more, and a kill loses two minutes of curves. Here an OSError
    comes out of the call that met it, the file holds whole records only, and the next call tries anew.

    first: the step at which this launch begins; what an earlier one recorded from there on is not shown.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.first = first
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(NUMBERS)}"
        self.path = folder / name

    def append(self, summaries: Sequence[Summary], step: int) -> None:
        self.path.parent.mkdir(exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        content = BytesIO()
        records = RecordWriter(content)
        for event in [*([] if size else self._head()), *(Event(summary=one, step=step) for one in summaries)]:
            event.wall_time = time.time()
            records.write(event.SerializeToString())
        try:
            with self.path.open("ab") as file:
                file.write(content.getvalue())
        except OSError:
            if self.path.exists():
                os.truncate(self.path, size)  # readers stop for ever at half a record
            raise

    def _head(self) -> list[Event]:
        begin = SessionLog(status=SessionLog.START)
        return [Event(step=self.first, file_version="brain.Event:2"), Event(step=self.first, session_log=begin)]
