"""A finished run as folders for the Hub: the pipeline and each of its networks, every one complete in itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from savae_dist.errors import ConfigError
from savae_dist.networks.upload import upload
from savae_dist.pipeline.best import best_of
from savae_dist.pipeline.card.card_data import NO_METRICS, CardFacts
from savae_dist.pipeline.card.model_card import model_card
from savae_dist.pipeline.card.summary import read_summary
from savae_dist.pipeline.folder import CONFIG, POSTERIORS, SAMPLER, write_config
from savae_dist.pipeline.pipeline import Pipeline


def export(
    source: str,
    out: Path,
    license: str | None = None,
    datasets: Sequence[str] = (),
    citations: Mapping[str, str] | None = None,
    best: bool = False,
    posteriors: bool = True,
) -> Pipeline:
    """Load the pipeline of a run, a saved folder or the Hub and write it to `out`; ConfigError if that is in use.

    license, datasets: see `CardFacts`. citations: BibTeX entries by the names of systems, of which the cards print its
    own. best: of a run, that of its best validation (`keep_best`) in place of its last one. posteriors: whether the
    codes of single training samples are written, if the pipeline has any.
    """
    if out.exists() and not (out / CONFIG).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is no earlier export: give a new or an empty folder")
    folder, summary = best_of(Path(source)) if best else (source, read_summary(Path(source)))
    pipeline = Pipeline.from_pretrained(folder)
    if not posteriors:
        pipeline.posteriors = None
    citation = (citations or {}).get(pipeline.system.get("name", ""), "")
    # A run's figures show its last networks: those of an earlier best are not there.
    pictures = pictures_of(Path(source)) if folder in (source, Path(source)) else []
    facts = CardFacts(summary, license, datasets, citation, pictures)
    write_folders(pipeline, out, facts)
    return pipeline


def write_folders(pipeline: Pipeline, out: Path, facts: CardFacts) -> None:
    """Write a pipeline and a folder for each of its networks, all with their cards, to `out`."""
    pipeline.save_pretrained(out)
    codes = [name for name, network in pipeline.networks.items() if not any(True for _ in network.parameters())]
    for name in pipeline.networks:
        folder, beside = out / name, codes if name == "decoder" else []  # so that it can generate on its own
        for other in beside:  # no weights: they say what its codes are
            shutil.copytree(out / other, folder / other, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
        write_config(folder, {name: ".", **{other: other for other in beside}}, pipeline.spec, pipeline.system)
        for drawn_from in (POSTERIORS, SAMPLER) if name == "decoder" else ():
            (folder / drawn_from).unlink(missing_ok=True)  # an earlier export into this folder may have left one
            if (out / drawn_from).is_file():
                shutil.copyfile(out / drawn_from, folder / drawn_from)
        (folder / "README.md").write_text(model_card(pipeline, name, facts))
    for picture in facts.pictures:
        shutil.copyfile(picture, out / picture.name)
    (out / "README.md").write_text(model_card(pipeline, "pipeline", facts))


def push(pipeline: Pipeline, repo_id: str, license: str | None, datasets: Sequence[str], **upload_options: Any) -> str:
    """Upload a pipeline with its networks and cards; see `Pipeline.push_to_hub`."""
    with TemporaryDirectory() as folder:
        write_folders(pipeline, Path(folder), CardFacts(license=license, datasets=datasets))
        return upload(Path(folder), repo_id, **upload_options)


def told_of_posteriors(pipeline: Pipeline, leave_out: str) -> str:
    """A line on the codes of training samples that are in what was written; "" where there are none.

    leave_out: how they are left out.
    """
    if pipeline.posteriors is None:
        return ""
    count = len(pipeline.posteriors.mean)
    what = f"{POSTERIORS} holds the codes of {count:,} training samples, which the decoder makes visible again"
    return f"{what}; to leave it out: {leave_out}"


def pictures_of(run: Path) -> list[Path]:
    """The figures of a run; none where there was no validation set, since they are then of training samples."""
    measured = any(name not in NO_METRICS for name in read_summary(run))
    return sorted((run / "figures").glob("*.png")) if measured else []
