"""`networks.initial` takes what `Pipeline.from_pretrained` and `Network.from_pretrained` take, and checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.launching import ROOT

from savae_dist.errors import CheckpointError, ConfigError, UserError
from savae_dist.load_config import load
from savae_dist.networks import CodeDiscriminator, Network, hub
from savae_dist.pipeline.exports.export import export
from savae_dist.preprocess import DataSpec
from savae_dist.run.initial import find_initial
from savae_dist.run.setup import build_networks
from savae_dist.training.batches import BatchSplit

RUN = ROOT / "tests" / "golden" / "run"
CHECKPOINT = RUN / "checkpoints" / "step-00000003"
SPEC = DataSpec("image", (1, 12, 10), 4, "unit")


def built(initial: str | Path | None = None) -> tuple[dict[str, Network], frozenset[str]]:
    """The networks of a run like the one in RUN, and which of them were given."""
    asked = [] if initial is None else [f"networks.initial={initial}"]
    return build_networks(load([str(RUN / "config.yaml"), *asked]), SPEC, BatchSplit(8), torch.device("cpu"))


def taken(initial: str | Path, source: Path) -> set[str]:
    """The networks that were given, after a check that they are those in `source` and that the others are not."""
    (networks, given), (fresh, _) = built(initial), built()
    for name, network in networks.items():
        expected = Network.from_pretrained(source / name).state_dict() if name in given else fresh[name].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    return set(given)


def test_what_runs_and_checkpoints_hold(tmp_path: Path) -> None:
    assert taken(RUN, RUN / "pipeline") == {"encoder", "decoder"}
    assert taken(RUN / "pipeline", RUN / "pipeline") == {"encoder", "decoder"}
    assert taken(CHECKPOINT, CHECKPOINT / "networks") == {"encoder", "decoder", "critic"}
    assert taken(CHECKPOINT / "networks", CHECKPOINT / "networks") == {"encoder", "decoder", "critic"}


def test_a_single_network(tmp_path: Path) -> None:
    assert taken(RUN / "pipeline" / "encoder", RUN / "pipeline") == {"encoder"}
    shutil.copytree(CHECKPOINT / "networks" / "critic", tmp_path / "of another name")
    assert taken(tmp_path / "of another name", CHECKPOINT / "networks") == {"critic"}


def test_exported_folders_and_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(str(RUN), tmp_path / "exported")
    assert taken(tmp_path / "exported", RUN / "pipeline") == {"encoder", "decoder"}
    assert taken(tmp_path / "exported" / "decoder", RUN / "pipeline") == {"decoder"}
    asked: list[str] = []

    def download(source: str, **options: object) -> str:
        asked.append(source)
        return str(tmp_path / "exported")

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert taken("someone/model", RUN / "pipeline") == {"encoder", "decoder"}
    assert asked == ["someone/model"]


def test_one_of_several_of_a_class_goes_by_its_folder_s_name(tmp_path: Path) -> None:
    networks: dict[str, Network] = {name: CodeDiscriminator(3) for name in ("style_critic", "label_critic")}
    for name in ("style_critic", "elsewhere"):
        networks["style_critic"].save_pretrained(tmp_path / name)
    assert find_initial(str(tmp_path / "style_critic"), networks) == {"style_critic": tmp_path / "style_critic"}
    with pytest.raises(ConfigError, match="as style_critic and label_critic are: name its folder"):
        find_initial(str(tmp_path / "elsewhere"), networks)


@pytest.mark.parametrize(
    ("made", "words", "kind"),
    [
        ("nowhere", "no such folder", CheckpointError),
        ("empty", r"holds no pipeline\.json", CheckpointError),
        ("unfinished", "the run is not finished", CheckpointError),
        ("classifier", "none of .* is one", ConfigError),
        ("others", "holds none of", ConfigError),
    ],
)
def test_what_holds_none_of_them_is_one_line(made: str, words: str, kind: type[UserError], tmp_path: Path) -> None:
    folder = tmp_path / made
    if made == "classifier":
        CodeDiscriminator(3).save_pretrained(folder)
    elif made == "others":
        shutil.copytree(RUN / "pipeline", folder)
        (folder / "encoder").rename(folder / "other")
        shutil.rmtree(folder / "decoder")
    elif made != "nowhere":
        folder.mkdir()
        (folder / "status.json").write_text('{"outcome": "running"}' if made == "unfinished" else "[]")
        (folder / "status.json").unlink() if made == "empty" else None
    with pytest.raises(kind, match=f"networks.initial={folder}.*{words}") as caught:
        built(folder)
    assert "\n" not in str(caught.value)
