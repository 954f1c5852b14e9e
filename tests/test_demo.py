"""The embedded default, whole, as a newcomer starts it: both phases, every outcome, in under three minutes."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from helpers.launching import scalars, status, train

from savae_dist.pipeline.pipeline import Pipeline

pytestmark = pytest.mark.slow


def test_the_embedded_default(tmp_path: Path) -> None:
    run, before = tmp_path / "run", resource.getrusage(resource.RUSAGE_CHILDREN)
    result = train(1, f"output={run}", timeout=900)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert status(run)["outcome"] == "done"
    # Seconds of the processor, not of the clock, since other tests run beside it; alone it takes about 150.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 240
    summary = json.loads((run / "summary.json").read_text())
    assert summary["accuracy"] > 0.93
    assert summary["class_flip_rate"] < 0.06
    assert summary["reconstruction_mse"] < 0.6 * summary["class_mean_mse"]
    assert f"reconstructions: error {summary['reconstruction_mse']:.3f}, " in result.stderr
    assert f" % of what the class mean has ({summary['class_mean_mse']:.3f}); " in result.stderr
    assert summary["steps"] == {"vec": 600, "decoder": 900}
    assert {p.stem for p in (run / "figures").iterdir()} == {
        *("reconstructions", "samples", "samples_by_class", "latent_space", "worst_reconstructions")
    }
    curves = scalars(run)
    assert {"vec/kl", "vec/cat", "vec/gradient_norm", "vec/lr", "critic/real", "decoder/rec"} <= curves.keys()
    assert curves["vec/cat"][600] < 0.3 < curves["vec/cat"][20]
    pipeline = Pipeline.from_pretrained(run)
    threes = pipeline.generate(50, label=3, seed=0)
    assert (pipeline.classify(threes).argmax(1) == 3).mean() > 0.8
    assert str(run) in result.stderr  # the closing summary says where everything lies
