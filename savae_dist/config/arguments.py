"""Read `[PRESET or FILE.yaml] [key=value ...]`: find and load the file, and parse the changes.

Nothing here loads torch.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from savae_dist.config.nearest import nearest
from savae_dist.config.yaml_bounds import MAX_DEPTH, check_bounds, read_text
from savae_dist.errors import ConfigError
from savae_dist.untrusted import shown

PRESET_FOLDERS = (
    Path(__file__).parents[2] / "launch_configs" / "runs",  # in a checkout
    Path(__file__).parents[1] / "launch_configs" / "runs",  # in an installed wheel
)
DEFAULT = "demo"
INTERPOLATION = "${"
LONGEST_NAME = 250  # file systems allow 255 bytes; a longer key=value is no file


@dataclass(frozen=True)
class Asked:
    """What the arguments ask for. name: of the preset or file, None if none is named; preset: its content."""

    name: str | None
    preset: DictConfig
    changes: DictConfig


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn errors of OmegaConf, YAML and the checks into a ConfigError of one line."""
    try:
        yield
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(where + " ".join(str(error.msg or error).splitlines()[0].split())) from error
    except (ValueError, YAMLError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def read(arguments: Sequence[str]) -> Asked:
    """The preset or file (`demo` if none is named) and the changes."""
    files = [a for a in arguments if "=" not in a or (len(a) < LONGEST_NAME and Path(a).is_file())]
    overrides = [a for a in arguments if a not in files]
    if len(files) > 1:
        raise ConfigError(f"one preset or file, then key=value; {files[1]!r} is neither")
    name = files[0] if files else None
    return Asked(name, _preset(name or DEFAULT), _changes(overrides))


def _changes(overrides: Sequence[str]) -> DictConfig:
    tars = [override.partition("=")[0] for override in overrides if override.endswith(".tar")]
    for override in overrides:
        key = override.partition("=")[0]
        if tars.count(key) > 1:  # expanded by the shell; the last would count, as it does for other keys
            raise ConfigError(
                f"{key} names {tars.count(key)} tars: a pattern needs quotes, '{key}=shards-{{0..9}}.tar'"
            )
        if key.count(".") > MAX_DEPTH:
            raise ConfigError(f"{shown(key)} is nested deeper than {MAX_DEPTH}")
        try:
            check_bounds(override.partition("=")[2], key)
            OmegaConf.from_dotlist([override])
        except YAMLError as error:
            raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
    changes = OmegaConf.from_dotlist(list(overrides))
    refuse_interpolation(changes)
    return changes


def _preset(name: str) -> DictConfig:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        presets = {p.stem: p for folder in PRESET_FOLDERS for p in sorted(folder.glob("*.yaml"))}
        if name not in presets:
            raise ConfigError(f"{name!r} is no preset{nearest(name, presets)}; presets: {', '.join(sorted(presets))}")
        path = presets[name]
    return read_yaml(path)


def read_yaml(path: Path) -> DictConfig:
    """The mapping in a YAML file; ConfigError if there is none."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    try:
        config = OmegaConf.load(io.StringIO(read_text(path)))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} must hold `key: value` pairs")
    refuse_interpolation(config, f"{path}: ")
    return config


def refuse_interpolation(config: DictConfig, where: str = "") -> None:
    """ConfigError for a value with OmegaConf's `${...}`, which may name any variable of the environment.

    In a URL of somebody's preset, `${oc.env:AWS_SECRET_ACCESS_KEY}` would send the secret to that server.
    """
    nodes: list[tuple[str, Any]] = [("", OmegaConf.to_container(config, resolve=False))]
    while nodes:
        key, node = nodes.pop()
        if isinstance(node, dict):
            nodes += [(f"{key}.{name}" if key else str(name), one) for name, one in node.items()]
        elif isinstance(node, list):
            nodes += [(key, one) for one in node]
        elif isinstance(node, str) and INTERPOLATION in node:
            raise ConfigError(
                f"{where}{key}={node}: ${{...}} is not filled in, since it could put a secret of the environment into "
                f'a URL; write the value, or have the shell fill it in: {key}="$NAME" on the command line'
            )
