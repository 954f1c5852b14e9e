"""Whole runs of the trainer, one after the other, on the ranks of this launch.

Usage: runs_worker.py JSON, a list of {"strategy": one of `config.strategy`, "arguments": [...]}; with "from" and
"step" the run goes on from that run's folder as it was after that step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from helpers.launching import cut

from savae_dist.train import main


def run(job: dict) -> None:
    state = PartialState(cpu=True)
    output = next(a.removeprefix("output=") for a in job["arguments"] if a.startswith("output="))
    if "from" in job and state.is_main_process:
        cut(Path(job["from"]), Path(output), job["step"])
    state.wait_for_everyone()
    strategy = job["strategy"]
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true" if strategy.startswith("zero") else "false"
    os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = strategy[-1]
    os.environ["ACCELERATE_USE_FSDP"] = "true" if strategy == "fsdp" else "false"
    code = main(job["arguments"])
    assert code == 0, job


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in json.loads(sys.argv[1]):
        run(one)
    PartialState().destroy_process_group()
