"""Samples that a judge confirms are kept, and the yield is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from savae_dist.data import Shards
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.preprocess import DataSpec
from tools import generate

SPEC = DataSpec("signal", (1, 64), 2, "none", rate=1000.0, class_names=("sound", "worn"))


def saved(folder: Path, says: int) -> str:
    """A pipeline with random weights whose classifier puts everything into class `says`."""
    torch.manual_seed(0)
    classifier = DenseClassifier(2, 2)
    last = [layer for layer in classifier.modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.weight.data.zero_()
    last.bias.data = torch.eye(2)[says]
    networks = {
        "encoder": ConvEncoder(SPEC.shape, 2, 2),
        "decoder": ConvDecoder(SPEC.shape, 2, 2, output="linear"),
        "classifier": classifier,
    }
    bank = PosteriorBank(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.full((2, 2), -2.0), torch.tensor([0, 1]))
    Pipeline(networks, SPEC, posteriors=bank).save_pretrained(folder)
    return str(folder)


def test_only_what_the_judge_confirms_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = saved(tmp_path / "judge", says=1)
    words = [judge, str(tmp_path / "out"), "--count", "5", "--format", "shards", "--judge", judge]
    assert generate.main([*words, "--label", "sound"]) == 2
    assert "class sound: the judge confirms 0 of 100 draws, fewer than --count" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert generate.main([*words, "--label", "worn"]) == 0
    assert "class worn: the judge confirms 5 of 5 draws" in capsys.readouterr().out
    assert Shards.open(str(tmp_path / "out")).label_counts == {1: 5}
    with pytest.raises(SystemExit):
        generate.main(words)
