"""`compile`: an update's whole forward pass, its losses with the gradients within them, is handed to torch's compiler.

Outside stay what changes from step to step, the factors of the terms above all, and the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from savae_dist.config.compile import Compile
from savae_dist.config.strategy import SHOWN, Strategy
from savae_dist.errors import ConfigError
from savae_dist.systems.phases import Batch

MOST_LOSSES = 256  # the most that torch compiles in one process, far above what any system has

Forward = Callable[[Batch, int], dict[str, Tensor]]


def check_launch(compile: Compile, device: torch.device, strategy: Strategy) -> None:
    """ConfigError for what is not compiled on this device or under this strategy."""
    if compile != "none" and strategy == "fsdp":
        raise ConfigError(
            f"compile={compile} does not go with FSDP, whose weights are put together in the middle of an update: use "
            "compile=none, or another launch file"
        )
    if compile == "graphs" and device.type != "cuda":
        raise ConfigError(f"compile=graphs needs an NVIDIA GPU, and this run is on {device.type}: use compile=update")
    if compile == "graphs" and strategy != "ddp":
        raise ConfigError(
            f"compile=graphs does not go with {SHOWN[strategy]}, which moves the weights whose addresses a graph has: "
            "use compile=update, or a launch file without DeepSpeed"
        )


class Capture:
    """Calls an update's forward pass, compiled at its first step.

    breaks: why the compiler had to cut it into pieces, since this was last told.
    """

    def __init__(self, name: str, module: nn.Module, how: Compile) -> None:
        self.name, self.how, self.breaks = name, how, set[str]()
        if how != "none":
            import torch._dynamo  # here: it takes seconds to load, and few runs are compiled

            # All losses of all updates share the code of `UpdateModule.forward`; by default torch compiles eight
            # variants of a piece of code, and runs any further ones uncompiled.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_LOSSES)
        if how == "update":
            module.compile()
        elif how == "graphs":
            module.compile(mode="reduce-overhead")

    def __call__(self, forward: Forward, batch: Batch, loss_index: int) -> dict[str, Tensor]:
        """forward: the module as DDP or ZeRO wraps it."""
        if self.how == "none":
            return forward(batch, loss_index)
        from torch._dynamo.utils import counters  # here: it takes seconds to load, and few runs are compiled

        before = dict(counters["graph_break"])
        if self.how == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        terms = forward(batch, loss_index)
        for reason, count in counters["graph_break"].items():
            if count > before.get(reason, 0):
                self.breaks.add(reason)
        # The next graph writes into the same memory, and terms are added up over the parts of a step.
        return {name: term.clone() for name, term in terms.items()} if self.how == "graphs" else terms

    def told(self) -> dict[str, str]:
        """A warning where the update has turned out not to be whole, by its sign; given once."""
        if not self.breaks:
            return {}
        reason = " ".join(next(iter(self.breaks)).partition("Explanation:")[0].split())[:200]
        line = (
            f"compile={self.how}: the losses of {self.name} could not be compiled whole, but in pieces, between which "
            f"they run as without it; what stood in the way: {reason}"
        )
        self.breaks.clear()
        return {f"{self.name} in pieces": line}
