"""What travels between the ranks: the gradients of what is trained, once per step, and one integer per iteration."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from helpers.launching import SMALL, shards, side_by_side
from safetensors.numpy import load_file

from savae_dist.load_config import load
from savae_dist.run.planning import plan

pytestmark = pytest.mark.distributed

# Profiles the iterations of both phases one by one, from the vote before one to that before the next.
PROGRAM = """
import json, os, sys
import torch
from torch.profiler import ProfilerActivity, profile
from savae_dist.distributed import signals
from savae_dist.run.results import Results
from savae_dist import train

torch.set_num_threads(1)
vote, running, seen = signals.Stop._vote, [], []

def counted(stop, mine):
    answer = vote(stop, mine)
    if running:
        profiler = running.pop()
        profiler.__exit__(None, None, None)
        events = profiler.profiler.kineto_results.events()
        seen.append([(e.name(), e.shapes(), e.dtypes()) for e in events if e.name().startswith("gloo:")])
    running.append(profile(activities=[ProfilerActivity.CPU], record_shapes=True))
    running[-1].__enter__()
    return answer

signals.Stop._vote = counted
Results.validate = Results.finish = lambda *arguments: None  # the votes are those of the training alone
code = train.main(sys.argv[1:])
if os.environ["RANK"] == "0":
    print(json.dumps(seen))
signals.leave(code)  # a profiler is open
"""


STEPS, LOG_EVERY = 6, 4
NETWORKS = [*SMALL, "system.reconstruction_weight=0"]  # the paper's alone
FEW = 200  # bytes of what is measured, not trained
SUMS_OF_PIXELS = 8 * 2 * 150  # two for each of the 12x12 pixels and a few more: how generated samples differ
BYTES = {"float": 4, "double": 8, "long int": 8, "int": 4, "c10::BFloat16": 2}


def traffic(run: Path, data: Path, *options: str) -> list[list[tuple[str, str, int]]]:
    """Of iterations 1 to 11 (two phases of six): what rank 0 took part in, as (operation, type, bytes).

    To the sixth belong the end of its phase and the beginning of the next. An iteration ends with the next one's vote.
    """
    words = [
        *NETWORKS,
        "networks.width=2",
        "networks.norm=group",
        f"max_steps={STEPS}",
        f"log_every={LOG_EVERY}",
        *options,
    ]
    one = [sys.executable, "-c", PROGRAM, *words, f"data.train={data}", f"output={run}"]
    done = side_by_side(one, one)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr
    seen = json.loads(done[0].stdout.splitlines()[-1])
    return [
        [(name.removeprefix("gloo:"), kind, math.prod(shape) * BYTES[kind]) for name, (shape,), (kind,) in iteration]
        for iteration in seen
    ]


def sizes(run: Path) -> dict[str, int]:
    """Bytes of each network's parameters (none has buffers with networks.norm=group)."""
    networks = max((run / "checkpoints").iterdir()) / "networks"
    files = {folder.name: load_file(folder / "model.safetensors") for folder in networks.iterdir()}
    return {name: sum(tensor.nbytes for tensor in tensors.values()) for name, tensors in files.items()}


@pytest.mark.parametrize(
    "options",
    [[], ["accumulate=2", "ema=0.5"], ["system.critic_update=joint"], ["ddp.reduce_dtype=bf16"]],
    ids=str,
)
def test_nothing_but_what_the_mathematics_needs(options: list[str], tmp_path: Path) -> None:
    """Two processes; not one byte more than the trained gradients once per optimiser step, and eight for `Stop`.

    Where it is logged, a few numbers more: the sums of the losses, and what is measured at the decoder's output.
    """
    seen, size = traffic(tmp_path / "run", shards(tmp_path / "shards"), *options), sizes(tmp_path / "run")
    assert len(seen) == 2 * STEPS - 1
    config = load([*NETWORKS, *options])
    half = config.ddp.reduce_dtype == "bf16"
    critic_steps = 1 if "system.critic_update=joint" in options else 2  # on real, and on generated samples
    gradients = {
        "vec": size["encoder"] + size["classifier"],
        "decoder": critic_steps * size["critic"] + size["decoder"],
    }
    phases = {phase.name: phase for phase in config.system.phases()}
    counts = {name: number // 4 for name, number in size.items()}  # float32
    collectives = {"vec": 2, "decoder": critic_steps + 1}  # DDP's first bucket ends at 1 MiB, and the VEC has more
    for number, iteration in enumerate(seen[1:], 2):  # in the first, DDP does not know its buckets yet
        phase, step = ("vec", number) if number <= STEPS else ("decoder", number - STEPS)
        sums = [(kind, size) for name, kind, size in iteration if name == "all_reduce"]
        floats = [size for kind, size in sums if kind == "float" and size > 4]
        measured = [size for size in floats if size <= FEW]
        reduced = [size for kind, size in sums if kind == "c10::BFloat16"] if half else [s for s in floats if s > FEW]
        assert (sum(reduced), len(reduced)) == (gradients[phase] // (1 + half), collectives[phase]), number
        votes = [size for name, kind, size in iteration if (name, kind) == ("all_reduce", "long int")]
        assert votes == [8]
        # The same as `--plan` predicts.
        assert sum(reduced) + sum(votes) == plan.reduced(phases[phase], counts, config.ddp)
        metrics = [size for name, kind, size in iteration if (name, kind) == ("all_reduce", "double")]
        ends = step == STEPS  # and is logged, and saved before and after batch norms are computed anew
        logged, compared = step % LOG_EVERY == 0, phase == "decoder" and step % LOG_EVERY == 0
        assert len(metrics) == (3 if ends else logged + compared)
        assert bool(measured) == compared
        assert max(metrics, default=0) <= (SUMS_OF_PIXELS if compared else FEW)
        if step > 2 and not ends:  # before that DDP tells the ranks the order of its buckets
            assert {name for name, _, _ in iteration} == {"all_reduce"}
            assert len(iteration) == len(reduced) + len(measured) + 1 + len(metrics)


def test_frozen_networks_do_not_travel(tmp_path: Path) -> None:
    """Not when a phase begins either: DDP sends what is trained from rank 0 to all, and nothing else."""
    begins = traffic(tmp_path / "run", shards(tmp_path / "shards"))[STEPS - 1]
    size = sizes(tmp_path / "run")
    sent = sorted(amount for name, kind, amount in begins if (name, kind) == ("broadcast", "float"))
    assert sent == sorted([size["critic"], size["decoder"]])
