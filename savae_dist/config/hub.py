"""The keys `hub.*` and `resume`: what a run pushes to the Hub, and from which checkpoint it continues."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from savae_dist.config.effect import no_effect
from savae_dist.errors import ConfigError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DATASET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)")
RESUME = ("auto", "never")


@dataclass
class HubConfig:
    """push: the repository ORG/NAME that gets the newest checkpoint at every validation, and at the end the pipeline.

    private: of a repository that is made for it. license: of the weights, as the Hub names it; null: none is stated.
    timeout: seconds for which the end of the run waits for the Hub.
    """

    push: str | None = None
    private: bool = False
    license: str | None = None
    timeout: float = 600.0

    def check(self) -> None:
        if self.push is not None and not REPOSITORY.fullmatch(self.push):
            raise ConfigError(f"hub.push must be a repository on the Hub, ORG/NAME, not {self.push!r}")
        if self.push is None and (self.private or self.license is not None):
            key, value = ("private", self.private) if self.private else ("license", self.license)
            raise no_effect(f"hub.{key}", value, "without hub.push")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"hub.timeout is a number of seconds, not {self.timeout}")


def check_resume(value: str) -> None:
    """ConfigError unless `resume` is one of its words or a repository."""
    if value not in RESUME and not REPOSITORY.fullmatch(value):
        raise ConfigError(f"resume must be {', '.join(RESUME)} or a repository on the Hub, ORG/NAME, not {value!r}")


def datasets_of(sources: str | list[str] | None) -> list[str]:
    """The data sets ORG/NAME of the Hub that are trained on, as `hf://datasets/ORG/NAME/...` names them."""
    urls = [sources] if isinstance(sources, str) else sources or []
    found = (DATASET.match(url) for url in urls)
    return list(dict.fromkeys(one[1] for one in found if one))
