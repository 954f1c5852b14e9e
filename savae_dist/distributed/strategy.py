"""The strategy that the launch file asks for, and which of its keys are refused."""

from __future__ import annotations

import importlib.util
import os

from savae_dist.config.strategy import Strategy
from savae_dist.errors import ConfigError

# Variables of a launch -> (values that change nothing, advice for any other value).
DEEPSPEED = {
    "ACCELERATE_GRADIENT_CLIPPING": (("none", "0", "0.0"), "leave it out and set optimizers.NAME.clip_norm instead"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": (("none",), "these optimisers stay on their device; leave it out"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": (("none",), "that is ZeRO-3's; leave it out"),
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": (("false",), "that is ZeRO-3's; leave it out"),
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": (("false",), "that is ZeRO-3's; leave it out"),
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": (("none",), "leave it out; zero_stage is all that the launch decides"),
}
FSDP = {
    "FSDP_VERSION": (("2",), "set it to 2"),
    "FSDP_SHARDING_STRATEGY": (("full_shard",), "weights are always cut up; leave it out"),
    "FSDP_RESHARD_AFTER_FORWARD": (("true", "full_shard"), "whole weights are always freed after use; leave it out"),
    "FSDP_OFFLOAD_PARAMS": (("false",), "weights stay on their device; leave it out"),
    "FSDP_AUTO_WRAP_POLICY": (("no_wrap",), "each weight is cut by itself; leave it out"),
    "FSDP_IGNORED_MODULES": ((), "all networks that a phase trains are cut; leave it out"),
    "FSDP_FORWARD_PREFETCH": (("false",), "weights are fetched when they are used; leave it out"),
    "FSDP_BACKWARD_PREFETCH": (("no_prefetch",), "weights are fetched when they are used; leave it out"),
    "FSDP_STATE_DICT_TYPE": (("full_state_dict",), "checkpoints hold whole weights; leave it out"),
    "FSDP_ACTIVATION_CHECKPOINTING": (("false",), "leave it out and set networks.checkpoint_activations instead"),
}
# Strategies of Accelerate that the engine does not support.
UNKNOWN = {
    "ACCELERATE_USE_MEGATRON_LM": "MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "PARALLELISM_CONFIG",
}


def asked_strategy() -> Strategy:
    """How the launch file spreads updates over the processes; ConfigError for what is not supported of it.

    Only `zero_stage` of the launch file's `deepspeed_config` is used, and nothing of `fsdp_config`. Their other keys
    configure plugins of Accelerate that are never made (DeepSpeed's would clip gradients at 1), so a value that would
    change something is refused.
    """
    for name, other in UNKNOWN.items():
        if _asked(name):
            raise ConfigError(
                f"the launch asks for {other}, which this trainer does not support: use distributed_type MULTI_GPU, "
                "DEEPSPEED or FSDP as in launch_configs/accelerate"
            )
    if _asked("ACCELERATE_USE_FSDP"):
        _refuse_changes("FSDP", FSDP)
        return "fsdp"
    if not _asked("ACCELERATE_USE_DEEPSPEED"):
        return "ddp"
    _refuse_changes("DeepSpeed", DEEPSPEED)
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2"):
        reason = "ZeRO-3 cuts up networks that another update needs whole" if stage == "3" else "it is not supported"
        raise ConfigError(f"the launch says zero_stage={stage} of DeepSpeed: {reason}; set it to 1 or 2")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("the launch asks for DeepSpeed, which is not installed: pip install 'savae-dist[deepspeed]'")
    return "zero1" if stage == "1" else "zero2"


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


def _refuse_changes(whose: str, variables: dict[str, tuple[tuple[str, ...], str]]) -> None:
    """ConfigError if one of the launch's variables has a value that would change something."""
    for variable, (harmless, advice) in variables.items():
        value = os.environ.get(variable, "").lower()
        if value not in ("", *harmless):
            name = variable.removeprefix("ACCELERATE_").removeprefix(f"{whose.upper()}_").lower()
            raise ConfigError(f"the launch says {name}={value} of {whose}: {advice}")
