"""What a launch of DeepSpeed or FSDP may ask, and what ZeRO refuses; how one process and DDP wrap an update."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from torch import nn

from savae_dist.config.schema import DdpConfig, RunConfig
from savae_dist.distributed import strategy
from savae_dist.distributed.launch import describe, start
from savae_dist.distributed.strategy import asked_strategy
from savae_dist.errors import ConfigError
from savae_dist.systems import SAVAE
from savae_dist.systems.phases import Phase, Update
from savae_dist.testing.small_run import SmallRun
from savae_dist.training.engine import UpdateModule
from savae_dist.training.strategies import check_zero

SMALL = SAVAE(latent_dim=3, vec_steps=4, decoder_steps=4)


@pytest.fixture(autouse=True)
def _deepspeed_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "ACCELERATE_USE_FSDP", *strategy.DEEPSPEED, *strategy.FSDP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")


def test_a_launch_that_asks_for_nothing_is_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert asked_strategy() == "ddp"


@pytest.mark.parametrize("stage", ["1", "2"])
def test_the_stage_of_the_launch(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", stage)
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "none")
    assert asked_strategy() == f"zero{stage}"


def fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")


def test_an_fsdp_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Accelerate's launcher sets where the file says nothing but the version."""
    fsdp(monkeypatch)
    told = {"VERSION": "2", "SHARDING_STRATEGY": "FULL_SHARD", "RESHARD_AFTER_FORWARD": "true"}
    told |= {"OFFLOAD_PARAMS": "false", "FORWARD_PREFETCH": "false", "ACTIVATION_CHECKPOINTING": "false"}
    for name, value in told.items():
        monkeypatch.setenv(f"FSDP_{name}", value)
    assert asked_strategy() == "fsdp"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VERSION", "1", "version=1 of FSDP: set it to 2"),
        ("SHARDING_STRATEGY", "SHARD_GRAD_OP", "sharding_strategy=shard_grad_op of FSDP.*always cut up"),
        ("RESHARD_AFTER_FORWARD", "false", "reshard_after_forward=false of FSDP.*always freed"),
        ("OFFLOAD_PARAMS", "true", "offload_params=true of FSDP.*stay on their device"),
        ("AUTO_WRAP_POLICY", "SIZE_BASED_WRAP", "auto_wrap_policy=size_based_wrap of FSDP"),
        ("ACTIVATION_CHECKPOINTING", "true", "of FSDP.*networks.checkpoint_activations"),
    ],
)
def test_what_is_refused_of_fsdp(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsdp(monkeypatch)
    monkeypatch.setenv(f"FSDP_{name}", value)
    with pytest.raises(ConfigError, match=words):
        start("fp32", 9.0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEEPSPEED_ZERO_STAGE", "3", "zero_stage=3.*ZeRO-3 cuts up networks"),
        ("DEEPSPEED_ZERO_STAGE", "0", "zero_stage=0.*set it to 1 or 2"),
        ("GRADIENT_CLIPPING", "1.0", "gradient_clipping=1.0.*optimizers.NAME.clip_norm"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "nvme", "offload_optimizer_device=nvme"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device=cpu"),
        ("DEEPSPEED_OFFLOAD_PARAM_DEVICE", "cpu", "offload_param_device=cpu"),
        ("DEEPSPEED_ZERO3_INIT", "true", "zero3_init=true"),
        ("DEEPSPEED_CONFIG_FILE", "ds.json", "config_file=ds.json.*zero_stage"),
    ],
)
def test_what_is_refused(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any process waits for another."""
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(ConfigError, match=words) as caught:
        start("fp32", 9.0)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_deepspeed_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install 'savae-dist\[deepspeed\]'"):
        asked_strategy()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_process_has_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed")
    with pytest.raises(ConfigError, match=r"ZeRO-2 shares a state .* this is one"):
        start("fp32", 9.0)
    fsdp(monkeypatch)
    with pytest.raises(ConfigError, match=r"FSDP shares a state .* this is one"):
        start("fp32", 9.0)


def test_describe_names_the_stage() -> None:
    state = SimpleNamespace(num_processes=2, backend="gloo", device=torch.device("cpu"))
    state.distributed_type = DistributedType.MULTI_CPU
    torch.set_num_threads(1)
    assert describe(state, "bf16", "zero2") == "2 processes (ZeRO-2, gloo, cpu), bf16, 1 thread each"


def test_a_network_of_two_updates_is_refused() -> None:
    """Each would step its own copy: ZeRO-1 differs from DDP there without a word."""
    vec, decoder = SMALL.phases()
    check_zero((vec, decoder))  # each network once per phase
    both = (Update("a", ("encoder", "decoder"), ()), Update("b", ("encoder",), ()))
    with pytest.raises(ConfigError, match="2 updates of phase p train encoder"):
        check_zero((Phase("p", 1, both),))
    check_zero((Phase("p", 1, (both[0], replace(both[1], active=False))),))


@pytest.mark.parametrize("size", [0.0, -1.0, float("inf")])
def test_a_bucket_size_that_cannot_be(size: float) -> None:
    with pytest.raises(ConfigError, match=r"ddp\.bucket_mb must be positive"):
        RunConfig(ddp=DdpConfig(size)).check()


# Compiled.


@pytest.mark.slow
def test_compiled_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph per update; torch's own backend takes minutes on a CPU, so the graphs are run as they were traced."""
    compiled = []

    def compile(self: UpdateModule) -> None:
        compiled.append(self)
        nn.Module.compile(self, backend="eager")

    monkeypatch.setattr(UpdateModule, "compile", compile)
    plain, traced = SmallRun(SMALL), SmallRun(SMALL, compile="update")
    for trainer in (plain, traced):
        trainer.run("decoder", 2)
    assert len(compiled) == len(traced.updates)
    assert all(u.parallel.forward._compiled_call_impl is not None for u in traced.updates.values())
    for name, state in traced.weights().items():
        for key, value in state.items():
            torch.testing.assert_close(value, plain.weights()[name][key], rtol=1e-6, atol=1e-6)
