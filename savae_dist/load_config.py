"""From `[PRESET or FILE.yaml] [key=value ...]` to the run's configuration: defaults < preset or file < key=value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from savae_dist.config.arguments import DEFAULT, Asked, in_one_line, read
from savae_dist.config.augmentations import AUGMENTATIONS
from savae_dist.config.compile import named
from savae_dist.config.effect import field_values, no_effect, refuse_without_effect, without_effect
from savae_dist.config.identity import digest
from savae_dist.config.names import DEFAULT_SYSTEM, SystemNames, check_names, system_names, without_another_paper
from savae_dist.config.nearest import nearest
from savae_dist.config.schema import OptimizerConfig, RunConfig
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig, by_term
from savae_dist.errors import ConfigError
from savae_dist.systems import SYSTEMS
from savae_dist.systems.phases import System, Update

BY_TERM = {"schedules": ScheduleConfig, "adaptive": AdaptiveConfig}  # sections whose keys are names of terms


def load(arguments: Sequence[str]) -> RunConfig:
    """The configuration of `[PRESET or FILE.yaml] [key=value ...]`, the preset being `demo` if none is named.

    ConfigError in one line where it cannot work.
    """
    with in_one_line():
        asked = read(arguments)
        check_names(asked, registered())
        merged = OmegaConf.merge(_kept(asked), asked.changes)
        assert isinstance(merged, DictConfig)
        config = _typed(merged, asked.changes)
        _refuse_without_effect(config, merged, asked.changes)
        if config.output is None:
            config.output = _output(asked, config)
    return config


def registered() -> dict[str, SystemNames]:
    """All registered systems, those of a user's own program included."""
    return {
        name: SystemNames(type(system).__name__, tuple(map(str, OmegaConf.structured(system))))
        for name, system in SYSTEMS.items()
    }


def _kept(asked: Asked) -> DictConfig:
    """The preset, without what does not apply to the system that the changes name.

    A system of another paper takes none of the preset's hyperparameters and optimisers. Another member of the same
    family takes them all, except the hyperparameters in which the two members differ.
    """
    preset = _without_another_validation(asked, without_another_paper(asked, registered()))
    old, new = system_names(asked)
    if old == new or old not in SYSTEMS or new not in SYSTEMS or "system" not in preset:
        return preset
    _check_updates_of_member(asked, old, new)
    return _without_what_members_differ_in(preset, SYSTEMS[old], SYSTEMS[new])


def _without_another_validation(asked: Asked, preset: DictConfig) -> DictConfig:
    """The preset without `data.validation` if the changes name other training data: it belongs to the preset's."""
    before, after = (node.get("data") or {} for node in (preset, asked.changes))
    if "train" not in after or after["train"] == before.get("train") or "validation" not in before:
        return preset
    kept = preset.copy()
    kept.data.pop("validation")
    return kept


def _without_what_members_differ_in(preset: DictConfig, old: System, new: System) -> DictConfig:
    kept = preset.copy()
    before, after = field_values(old), field_values(new)
    for key in [key for key in preset.system if before.get(key) != after.get(key)]:
        kept.system.pop(key)
    return kept


def _check_updates_of_member(asked: Asked, old: str, new: str) -> None:
    """ConfigError if the optimisers have no entry for an update that only the new member has."""
    optimizers = OmegaConf.merge(asked.preset.get("optimizers") or {}, asked.changes.get("optimizers") or {})
    added = sorted(_updates(SYSTEMS[new]).keys() - _updates(SYSTEMS[old]).keys() - set(optimizers))
    if optimizers and added and "default" not in optimizers:
        raise ConfigError(
            f"optimizers say nothing of {added[0]}, an update of {new} that {old} does not have: add "
            f"optimizers.{added[0]}.lr=... or optimizers.default.lr=..."
        )


def _output(asked: Asked, config: RunConfig) -> str:
    """The run's folder: `runs/NAME` for a preset as it is, `runs/NAME-DIGEST` if the changes make it another run.

    Keys that may change when a run is resumed keep the folder.
    """
    same_system = (system_names(asked)[0] or DEFAULT_SYSTEM) == config.system.name
    complete = not OmegaConf.missing_keys(asked.preset)
    same = not asked.changes or (same_system and complete and digest(_typed(asked.preset)) == digest(config))
    name = Path(asked.name).stem if asked.name else DEFAULT if same else config.system.name
    return f"runs/{name}" if same else f"runs/{name}-{digest(config)}"


def _typed(asked: DictConfig, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Merge over the defaults and convert each value to its type; ConfigError or ValueError if one cannot work.

    changes: those of the command line, which `asked` includes.
    """
    asked, changes = asked.copy(), changes or {}
    optimizers = asked.pop("optimizers", None) or OmegaConf.create()
    if not isinstance(optimizers, DictConfig):
        raise ConfigError("optimizers needs an update's name: optimizers.default.lr=... or optimizers.NAME.lr=...")
    for section, kind in BY_TERM.items():
        if section in asked:
            asked[section] = by_term(section, asked[section] or {}, [*field_values(kind())])
    if "compile" in asked:
        asked.compile = named(asked.compile)
    data = asked.get("data") or {}
    if data.get("augment") == "none":
        data["augment"] = {}
        typed = changes.get("data") or {}
        if "augment" in typed and "augment_phases" not in typed:
            data["augment_phases"] = []  # the file's phases have no effect: the command line chose `none`
    elif not isinstance(data.get("augment", asked), DictConfig):
        raise ConfigError(
            f"data.augment: `none`, or strengths by name as in data.augment.{next(iter(AUGMENTATIONS))}=0.1, "
            f"not {data['augment']!r}"
        )
    schema = OmegaConf.structured(RunConfig)
    schema.system = OmegaConf.structured(SYSTEMS[OmegaConf.select(asked, "system.name", default=DEFAULT_SYSTEM)])
    _check_lists(schema, asked)
    config = OmegaConf.to_object(OmegaConf.merge(schema, asked))
    assert isinstance(config, RunConfig)
    overruled, usual = _overruled(config.system, changes.get("system")), field_values(SYSTEMS[config.system.name])
    config.system = replace(config.system, **{key: usual[key] for key in overruled})
    config.optimizers = _optimizers(config.system, optimizers, changes.get("optimizers") or {})
    config.check()
    _check_augment_phases(config)
    _check_starts(config)
    config.schedules = {name: schedule for name, schedule in config.schedules.items() if schedule != ScheduleConfig()}
    config.data.augment = {name: strength for name, strength in config.data.augment.items() if strength}
    if not config.data.augment:
        config.data.augment_phases = []
    return config


def _check_augment_phases(config: RunConfig) -> None:
    """ConfigError for a phase that the system does not have."""
    phases = [phase.name for phase in config.system.phases()]
    for name in config.data.augment_phases:
        if name not in phases:
            raise ConfigError(
                f"data.augment_phases: no such phase {name!r}{nearest(name, phases)}; "
                f"{config.system.name} has {', '.join(phases)}"
            )


def _check_lists(schema: DictConfig, asked: DictConfig) -> None:
    """ConfigError if a list is given keys; OmegaConf's own error would not name the list."""
    for section in ("system", "data"):
        for key, value in (asked.get(section) or {}).items():
            theirs = schema[section][key]
            if isinstance(value, DictConfig) and isinstance(theirs, BaseContainer) and type(theirs) is not type(value):
                raise ConfigError(f"{section}.{key}: holds a list, {section}.{key}=[...], and no keys")


def _overruled(config: Any, *changes: Mapping[str, Any] | None) -> list[str]:
    """Keys of a preset or file that have no effect since the command line made another choice: they go unnoticed."""
    typed = {str(key) for some in changes for key in some or {}}
    return [unmet.key for unmet in without_effect(config) if unmet.other in typed and unmet.key not in typed]


def _updates(system: System) -> dict[str, Update]:
    return {update.name: update for phase in system.phases() for update in phase.updates}


def _optimizers(system: System, asked: DictConfig, changes: Mapping[str, Any]) -> dict[str, OptimizerConfig]:
    """Per update: defaults < optimizers.default < what the system says of the update < optimizers.NAME."""
    updates = _updates(system)
    for name in map(str, asked):
        if name != "default" and name not in updates:
            raise ConfigError(
                f"optimizers.{name}: no such update{nearest(name, updates)}; "
                f"{system.name} has {', '.join(updates)}, and `default` is for all"
            )
        if not isinstance(asked[name] or OmegaConf.create(), DictConfig):
            raise ConfigError(f"optimizers.{name}: holds keys, optimizers.{name}.lr=..., not {asked[name]!r}")
    everywhere = asked.get("default") or {}
    _optimizer("default", everywhere)
    result = {}
    for name, update in updates.items():
        own = asked.get(name) or {}
        config = _optimizer(name, everywhere, update.optimizer, own)
        usual = field_values(_optimizer(name, update.optimizer))
        # Reset values of `optimizers.default` that this update's optimiser cannot use: they are for other updates.
        unused = [unmet.key for unmet in without_effect(config) if unmet.key not in own]
        unused += _overruled(config, changes.get("default"), changes.get(name))
        result[name] = replace(config, **{key: usual[key] for key in unused})
    return result


def _check_starts(config: RunConfig) -> None:
    """ConfigError if an update would begin after its phase has ended, or all of a phase's after its first iteration."""
    for phase in config.system.phases():
        starts = {update.name: config.optimizers[update.name].start for update in phase.updates if update.active}
        for name, start in starts.items():
            if start >= phase.steps > 0:
                raise ConfigError(f"optimizers.{name}.start={start}: phase {phase.name} ends after {phase.steps} steps")
        if starts and min(starts.values()) > 0:
            raise ConfigError(
                f"optimizers: nothing is trained before step {min(starts.values())} of phase {phase.name}: "
                f"leave out the start of one of {', '.join(starts)}"
            )


def _optimizer(name: str, *layers: Mapping[str, Any]) -> OptimizerConfig:
    merged = OmegaConf.structured(OptimizerConfig)
    for layer in layers:
        for key, value in layer.items():
            if key not in merged:
                raise ConfigError(f"optimizers.{name}.{key}: no such key{nearest(str(key), merged)}")
            try:
                OmegaConf.update(merged, str(key), value)
            except OmegaConfBaseException as error:
                reason = str(error.msg or error).splitlines()[0]
                raise ConfigError(f"optimizers.{name}.{key}: {reason}") from error
    config = OmegaConf.to_object(merged)
    assert isinstance(config, OptimizerConfig)
    config.check(f"optimizers.{name}")
    return config


def _refuse_without_effect(config: RunConfig, merged: DictConfig, changes: DictConfig) -> None:
    """ConfigError for a key that was set and has no effect; effects that depend on the data are checked later."""
    refuse_without_effect("system", config.system, SYSTEMS[config.system.name])
    for name, update in _updates(config.system).items():
        refuse_without_effect(f"optimizers.{name}", config.optimizers[name], _optimizer(name, update.optimizer))
    optimizers = merged.get("optimizers") or {}
    everywhere = optimizers.get("default") or {}
    usual, given = field_values(OptimizerConfig()), field_values(_optimizer("default", everywhere))
    for key in map(str, everywhere):
        if given[key] != usual[key]:
            _refuse_for_all(key, given[key], config, optimizers, changes.get("optimizers") or {})


def _refuse_for_all(
    key: str, value: Any, config: RunConfig, optimizers: Mapping[str, Any], changes: Mapping[str, Any]
) -> None:
    """ConfigError if `optimizers.default.KEY` reaches no update; the command line's `changes` may overrule a file."""
    updates, typed = _updates(config.system), key in (changes.get("default") or {})
    named = [name for name in updates if key in (optimizers.get(name) or {})]
    own = [name for name, update in updates.items() if name in named or key in update.optimizer]
    unmet = {name: one for name in updates for one in without_effect(config.optimizers[name]) if one.key == key}
    if updates.keys() - unmet.keys() - set(own) or (named and not typed):
        return
    for name, one in unmet.items():
        if not typed and any(one.other in (changes.get(section) or {}) for section in ("default", name)):
            return
        chosen = f"optimizers.{name}" if one.other in (optimizers.get(name) or {}) else "optimizers.default"
        raise one.refusal("optimizers.default", value, chosen)
    instead = f"set optimizers.{own[0]}.{key}"
    raise no_effect(f"optimizers.default.{key}", value, "where every update has its own", instead)
