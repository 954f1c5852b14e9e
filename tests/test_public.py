"""What `savae_dist` itself offers, and what it loads for that."""

from __future__ import annotations

import subprocess
import sys

import pytest

import savae_dist
from savae_dist.pipeline.pipeline import Pipeline

LOADED = """
import sys
import savae_dist
assert savae_dist.__version__ and "Pipeline" in dir(savae_dist)
before = "torch" in sys.modules
from savae_dist import Encoder, Pipeline
assert savae_dist.Pipeline is Pipeline
trainer = ("training", "run", "train", "systems", "load_config", "distributed")
heavy = ("scipy.signal", "sklearn", "pandas", "cv2", "matplotlib", "onnx")  # seconds, for what few calls need
assert not [name for name in heavy if name in sys.modules]
print(before, "torch" in sys.modules, [name for name in trainer if f"savae_dist.{name}" in sys.modules])
"""


def test_torch_is_loaded_by_the_first_class_and_the_trainer_never() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False True []"


def test_all_of_it_is_there() -> None:
    assert savae_dist.Pipeline is Pipeline
    assert set(savae_dist.__all__) <= set(dir(savae_dist))
    namespace: dict[str, object] = {}
    exec("from savae_dist import *", namespace)
    assert namespace.keys() >= set(savae_dist.__all__)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'savae_dist' has no attribute 'Pipelin'"):
        savae_dist.Pipelin  # noqa: B018
