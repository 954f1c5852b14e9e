"""The contents of a checkpoint by file: taken from training, copied if need be, and written with a manifest."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors.torch import save_file
from torch import Tensor

from savae_dist.networks import FeatureNetwork, Network
from savae_dist.networks.base import PIPELINE
from savae_dist.run.training_state import TrainingState
from savae_dist.training.optim import WeightAverage

UpdateState = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by parameter name, and plain values


class Savable(Protocol):
    """The part of a `PreparedUpdate` that a checkpoint needs."""

    averages: dict[str, WeightAverage[Network]]

    def state(self) -> UpdateState: ...

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Contents:
    """state: where the run stands. texts, tensors: by file.

    copies: the tensors are copies (`HostMemory`); otherwise training still changes them.
    """

    state: TrainingState
    texts: dict[str, str]
    tensors: dict[str, dict[str, Tensor]]
    copies: bool = False

    @classmethod
    def of(
        cls,
        networks: Mapping[str, Network],
        updates: Mapping[str, Savable],
        state: TrainingState,
        pipeline: str = "",
    ) -> Contents:
        """Of training as it stands; all ranks must call it, since each may hold a part of the optimisers' states.

        pipeline: the text of a `pipeline.json`, by which the folder is loaded as one; "": none.
        """
        texts, tensors = {PIPELINE: pipeline} if pipeline else {}, {}
        # A feature network never changes; `state.features` holds its digest.
        folders = {f"networks/{name}": n for name, n in networks.items() if not isinstance(n, FeatureNetwork)}
        for name, update in updates.items():
            tensors[f"updates/{name}.safetensors"], values = update.state()
            texts[f"updates/{name}.json"] = json.dumps(values, indent=1)
            folders |= {f"ema/{network}": average.network for network, average in update.averages.items()}
        for folder, network in folders.items():
            tensors[f"{folder}/{SAFETENSORS_SINGLE_FILE}"] = network.state_dict()
            texts[f"{folder}/{CONFIG_NAME}"] = network.config_text()
        return cls(copy.deepcopy(state), texts, tensors)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values())

    def write(self, draft: Path) -> None:
        """Write all files into the new folder `draft`; the manifest of their sizes and digests comes last."""
        state = replace(self.state, good=self.state.good and self._finite())
        for name, text in {"state.json": json.dumps(asdict(state), indent=1), **self.texts}.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text)
        for name, tensors in self.tensors.items():
            save_file({key: self._alone(one) for key, one in tensors.items()}, draft / name, {"format": "pt"})
            # safetensors makes files that only their owner may read.
            shutil.copymode(draft / "state.json", draft / name)
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        manifest = {
            path.relative_to(draft).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)} for path in files
        }
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=1))

    def _finite(self) -> bool:
        networks = [tensors for name, tensors in self.tensors.items() if name.startswith("networks/")]
        return all(bool(torch.isfinite(one).all()) for tensors in networks for one in tensors.values())

    def _alone(self, tensor: Tensor) -> Tensor:
        """The tensor, contiguous and in memory of its own: safetensors refuses views of one buffer, as ZeRO makes."""
        return tensor.contiguous() if self.copies else tensor.clone(memory_format=torch.contiguous_format)


class HostMemory:
    """Host memory for a copy of a checkpoint's tensors; the next copy reuses it.

    For tensors of a GPU it is pinned, so that the GPU copies while the host goes on.
    """

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Tensor]] = {}

    def copy(self, contents: Contents) -> tuple[Contents, Callable[[], None]]:
        """The contents with copies of their tensors, and a function that waits until the copying is done."""
        held = self._held
        self._held = {
            file: {name: _into(held.get(file, {}).get(name), one) for name, one in tensors.items()}
            for file, tensors in contents.tensors.items()
        }
        copied = replace(contents, tensors=self._held, copies=True)
        if not any(one.is_cuda for tensors in contents.tensors.values() for one in tensors.values()):
            return copied, lambda: None
        event = torch.cuda.Event()
        event.record()  # the GPU's stream runs in order, so training changes nothing before the copies are made
        return copied, event.synchronize


def _into(held: Tensor | None, tensor: Tensor) -> Tensor:
    """A copy of the tensor, in the memory that is held if shape and type are the same."""
    if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
        held = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    return held.copy_(tensor, non_blocking=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
