"""When to ask a store again, and when to give up."""

from __future__ import annotations

import random
import sys
import threading
import time

from savae_dist.config.urls import shown
from savae_dist.errors import DataError, OutageError

REFUSED_LIMIT = 5.0  # seconds: what is missing or denied stays so, but a store that starts may say it at first
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
WORTH_TELLING = 2.0  # seconds of failing; single refused connections are a store's everyday
LAST_CHANCE = 10.0
FINAL = (FileNotFoundError, PermissionError, ImportError, AttributeError, LookupError, TypeError, ValueError)
ASK_LATER = (408, 425, 429)  # HTTP statuses below 500 that are worth another try


class Stopped(Exception):
    """A download that nobody waits for any more."""


class Refused(DataError):
    """The store has understood, and said no: missing, denied, or not what the index tells of."""


class WrongContent(OSError):
    """An answer of the wrong length. A proxy may cut one short; more than TRIES of them are what the store holds."""

    TRIES = 5


class TooSlow(TimeoutError):
    """An answer that came for so many seconds and did not end."""

    def __init__(self, bytes_read: int, seconds: float) -> None:
        super().__init__(f"{bytes_read:,} bytes in {seconds:.3g} s")
        self.seconds = seconds


def pause(seconds: float, stop: threading.Event | None) -> None:
    """Stopped once `stop` is set."""
    if stop is None:
        time.sleep(seconds)
    elif stop.wait(seconds):
        raise Stopped


class Outage:
    """What a process knows of its stores: since when none of them has answered, and whether it has said so."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.since: float | None = None
        self.reported = False

    def trial(self, url: str) -> Trial:
        return Trial(self, url)


class Trial:
    """The attempts at one request."""

    def __init__(self, outage: Outage, url: str) -> None:
        self.outage, self.url = outage, url
        self.failures = self.wrong = 0
        self.began = time.monotonic()
        self.refused: float | None = None  # since when, without an outage in between

    def failed(self, error: Exception) -> float:
        """Seconds to wait before the next attempt; OutageError or Refused if there is to be none."""
        now, outage = time.monotonic(), self.outage
        slow = error.seconds if isinstance(error, TooSlow) else 0.0  # it failed all that time
        self.began = min(self.began if self.failures else now, now - slow)
        self.failures += 1
        self.wrong += isinstance(error, WrongContent)
        failing, cause = now - self.began, " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if isinstance(error, WrongContent) or is_refusal(error):
            self.refused = self.refused or now
            if now - self.refused > REFUSED_LIMIT or self.wrong == WrongContent.TRIES:
                raise Refused(
                    f"{shown(self.url)}: {cause}; correct data.train / data.validation, upload it again, "
                    "or see to the credentials"
                ) from error
        else:
            self.refused = None
            self._is_out(failing, now, cause, error)
        # Jitter from the system's generator: those of the run's own stay as they are.
        wait = min(FIRST_WAIT * 2.0 ** min(self.failures - 1, 16), LONGEST_WAIT) * random.SystemRandom().uniform(0.5, 1)
        return min(wait, max(outage.limit - failing, 0.0) + FIRST_WAIT)

    def _is_out(self, failing: float, now: float, cause: str, error: Exception) -> None:
        outage = self.outage
        outage.since = outage.since or now - failing
        # Count the waiting of other threads, too: else a request that queued behind theirs would wait as long again.
        if failing >= outage.limit or (now - outage.since >= outage.limit and failing >= LAST_CHANCE):
            raise OutageError(
                f"{shown(self.url)}: no answer for data.outage_limit={outage.limit:g} s, at last {cause}; "
                "see to the store or the network, and run the same command again"
            ) from error
        if failing >= WORTH_TELLING and not outage.reported:
            outage.reported = True
            print(f"savae_dist: {shown(self.url)}: {cause}; trying for {outage.limit:g} s", file=sys.stderr)

    def succeeded(self) -> None:
        outage = self.outage
        if outage.reported and outage.since is not None:
            passed = time.monotonic() - outage.since
            print(f"savae_dist: {shown(self.url)}: answers again after {passed:.1f} s", file=sys.stderr)
        outage.since, outage.reported = None, False


def is_refusal(error: Exception) -> bool:
    """Whether the store has understood and said no, so that asking again changes nothing."""
    if isinstance(error, FINAL):
        return True
    status = _status(error)
    return status is not None and 400 <= status < 500 and status not in ASK_LATER


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error, as the libraries below fsspec tell it; 401 where they have no credentials."""
    known = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    if "aiohttp" in known:
        from aiohttp import ClientResponseError

        return error.status if isinstance(error, ClientResponseError) else None
    if "huggingface_hub" in known:
        from huggingface_hub.errors import HfHubHTTPError

        return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response else None
    if "botocore" in known:
        from botocore.exceptions import NoCredentialsError

        return 401 if isinstance(error, NoCredentialsError) else None
    if "gcsfs" in known:
        from gcsfs.retry import HttpError

        return int(error.code) if isinstance(error, HttpError) and error.code else None
    return 403 if isinstance(error, OSError) and str(error).startswith("Forbidden") else None  # gcsfs again
