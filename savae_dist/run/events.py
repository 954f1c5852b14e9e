"""TensorBoard's file of events, written at once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """A file of curves and pictures, made at its first record.

    torch's SummaryWriter leaves the writing to a thread: an error is printed there as a traceback and raised at some
    later call, after which nothing can be written any more, and a kill loses two minutes of curves. Here an OSError
    comes out of the call that met it, the file holds whole records only, and the next call tries anew.

    first: the step at which this launch begins; what an earlier one recorded from there on is not shown.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.first = first
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"

    def append(self, summaries: Sequence[Summary], step: int) -> None:
        events = [Event(summary=summary, step=step, wall_time=time.time()) for summary in summaries]
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("ab") as file:
            size = file.tell()
            if not size:
                now, begin = time.time(), SessionLog(status=SessionLog.START)
                events.insert(0, Event(step=self.first, wall_time=now, session_log=begin))
                events.insert(0, Event(step=self.first, wall_time=now, file_version="brain.Event:2"))
            content = BytesIO()
            records = RecordWriter(content)
            for event in events:
                records.write(event.SerializeToString())
            try:
                file.write(content.getvalue())
                file.flush()
            except OSError:
                os.truncate(self.path, size)  # readers stop for ever at half a record
                raise
