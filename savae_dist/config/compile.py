"""The key `compile`: what of an update torch compiles."""

from __future__ import annotations

from typing import Any, Literal

from savae_dist.errors import ConfigError

Compile = Literal["none", "update", "graphs"]

FORMER: dict[bool, Compile] = {True: "update", False: "none"}  # the key was a boolean before


def named(asked: Any) -> Any:
    """`true` and `false`, which older files and commands have, by their names of today; all else as it is."""
    return FORMER[asked] if isinstance(asked, bool) else asked


def check_compile(compile: Compile, accumulate: int, checkpoint_activations: bool) -> None:
    """ConfigError for what the choice does not go with; whether there is a GPU is known at the launch."""
    if compile == "graphs" and accumulate > 1:
        raise ConfigError(
            f"compile=graphs goes with accumulate=1 only, not {accumulate}: the graph of the second part would "
            "overwrite the gradient of the first; use compile=update"
        )
    if compile != "none" and checkpoint_activations:
        raise ConfigError(
            f"compile={compile} and networks.checkpoint_activations=true exclude each other: the compiler itself "
            "decides what is kept for the gradient; use one of them"
        )
