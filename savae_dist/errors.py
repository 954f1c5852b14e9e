"""Errors that a user can cause: each is one line (what, where, what next) and ends the program with its own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """A text on one line, what is no print in it escaped: names and values out of files may hold escape sequences."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


class UserError(Exception):
    """An expected failure; `code` is the exit code and goes into status.json. Its text is one printable line.

    everywhere: False if only this process met it, so that no other can tell of it.
    """

    code = 1
    everywhere = True

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(UserError):
    """A key, a value or a launch that cannot work."""

    code = 2


class DataError(UserError):
    """Shards that cannot be read, or too many bad samples in them."""

    code = 65


class OutageError(DataError):
    """A store that did not answer for as long as a run may wait; the same command continues the run."""

    code = 75


class DivergedError(UserError):
    """A run of updates whose gradients were not finite."""

    code = 70


class DriftError(UserError):
    """Ranks whose parameters are no longer equal: broken hardware or a bug; 70 is EX_SOFTWARE of sysexits."""

    code = 70


class SaveError(UserError):
    """A checkpoint could not be written."""

    code = 74


class Preempted(UserError):
    """Stopped from outside; the same command continues the run."""

    code = 75


class OccupiedError(UserError):
    """Another launch is at work in this run's folder; the same command continues the run once that has ended."""

    code = 75


class RankLost(UserError):
    """A peer is gone or out of reach; the same command continues the run."""

    code = 75
    everywhere = False


class WorkerLost(UserError):
    """A process that works for this one was killed, such as a loader's; the same command continues."""

    code = 75
    everywhere = False


class CheckpointError(UserError):
    """No checkpoint verifies, or it belongs to another run."""

    code = 76


class DeniedError(UserError):
    """Access denied, by a store or by the Hub."""

    code = 77


class Interrupted(BaseException):
    """A signal's way out of whatever this process waits for; it ends as Preempted.

    No `Exception`, like KeyboardInterrupt: code that catches every error, to try again or to wrap it, must let it pass.
    """


@contextmanager
def of_key(key: str, value: object) -> Iterator[None]:
    """Name the key of the configuration whose value, a folder or a name on the Hub, could not be loaded inside."""
    try:
        yield
    except (CheckpointError, DeniedError) as error:
        raise type(error)(f"{key}={value}: {error}") from error


def told_by(error: BaseException) -> UserError | None:
    """The user's error that `error` is or comes from, for libraries wrap what they catch; None for a bug.

    Through `raise ... from` any is found. Through what was merely being handled (`__context__`) only a stop is: a
    mistake in the handling of a user's error is a bug.
    """
    link: BaseException | None = error
    meant = True
    while link is not None:
        if isinstance(link, Interrupted):
            stopped = Preempted(str(link))
            stopped.everywhere = False  # the signal may have reached this process only
            return stopped
        if isinstance(link, UserError) and (meant or isinstance(link, Preempted)):
            return link
        meant = meant and link.__cause__ is not None
        link = link.__cause__ or link.__context__
    return None


class BadSample(Exception):
    """A sample that cannot be used; its text is the reason: undecodable, too many pixels, too many scans, shape, dtype,
    finite, label, crc or truncated.

    found: what it is instead, for people.
    """

    def __init__(self, reason: str, found: str = "") -> None:
        super().__init__(reason)
        self.found = found
