"""Write a finished run as folders that are ready for the Hub, each with a model card.

    python tools/export_hub.py RUN OUT [--license ID] [--trainer FILE.py]

OUT is the whole pipeline (`Pipeline.from_pretrained(OUT)`); OUT/encoder, OUT/decoder, ... are its networks, each
complete in itself: weights, configuration, preprocessing and card (`Encoder.from_pretrained(OUT/encoder)`). A run of a
system of one's own needs the file that enters it, `--trainer FILE.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from savae_dist.errors import ConfigError, UserError
from savae_dist.pipeline.folder import CONFIG, POSTERIORS, write_config
from savae_dist.pipeline.model_card import model_card
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems import SYSTEMS
from savae_dist.systems.own import enter
from savae_dist.systems.papers import citation_of


def export(source: str, out: Path, license: str | None = None) -> Pipeline:
    """Load the pipeline of a run, a saved folder or the Hub and write it to `out`; ConfigError if that is in use."""
    if out.exists() and not (out / CONFIG).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is no earlier export: give a new or an empty folder")
    pipeline = Pipeline.from_pretrained(source)
    summary = read_summary(Path(source))
    citation = citation_of(SYSTEMS.get(pipeline.system.get("name", "")))
    pipeline.save_pretrained(out)
    codes = [name for name, network in pipeline.networks.items() if not any(True for _ in network.parameters())]
    for name in pipeline.networks:
        folder, beside = out / name, codes if name == "decoder" else []  # so that it can generate on its own
        for other in beside:  # no weights: they say what its codes are
            shutil.copytree(out / other, folder / other, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
        write_config(folder, {name: ".", **{other: other for other in beside}}, pipeline.spec, pipeline.system)
        if name == "decoder" and pipeline.posteriors is not None:
            shutil.copyfile(out / POSTERIORS, folder / POSTERIORS)
        (folder / "README.md").write_text(model_card(pipeline, name, summary, license, citation))
    (out / "README.md").write_text(model_card(pipeline, "pipeline", summary, license, citation))
    return pipeline


def read_summary(run: Path) -> dict[str, Any]:
    """The metrics of a run's `summary.json`; empty if there are none."""
    path = run / "summary.json"
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}): remove it or run the evaluation again") from error
    return summary if isinstance(summary, dict) else {}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a finished run as Hub-ready folders with model cards.")
    parser.add_argument("run", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder, or an earlier export to replace")
    parser.add_argument("--license", help="the weights' licence as the Hub names it (apache-2.0, cc-by-4.0, ...)")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    options = parser.parse_args(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        pipeline = export(options.run, options.out, options.license)
    except (UserError, ValueError) as error:
        print(f"export_hub: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else ConfigError.code
    print(f"{options.out}: the pipeline; {', '.join(f'{options.out / name}' for name in pipeline.networks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
