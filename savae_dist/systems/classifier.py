"""A plain classifier, trained by cross-entropy alone: the independent judge of other systems' reconstructions.

Its encoder is all-convolutional (strides in place of pools, batch norm, no fully connected layer, no noise), so it
shares neither the architecture nor the KL of the networks that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

from torch import Tensor

from savae_dist.networks import AllConvEncoder, DenseClassifier, Network
from savae_dist.networks.blocks import Norm
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.phases import Batch, Phase, Recalibration, Update, check_classes, check_numbers

CITATION = """@inproceedings{springenberg2015striving,
  title     = {Striving for Simplicity: The All Convolutional Net},
  author    = {Springenberg, Jost Tobias and Dosovitskiy, Alexey and Brox, Thomas and Riedmiller, Martin},
  booktitle = {International Conference on Learning Representations, Workshop Track},
  year      = {2015}
}"""


@dataclass(frozen=True)
class PlainClassifier:
    """Hyperparameters of the classifier. latent_dim: features between the encoder and the classifier."""

    summary: ClassVar[str] = "a classifier of another architecture, to judge the others' reconstructions"
    paper: ClassVar[str] = "Springenberg 2015"
    citation: ClassVar[str] = CITATION

    name: str = "classifier"
    latent_dim: int = 64
    steps: int = 2000
    pipeline = ("encoder", "classifier")

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim",), ("steps",))

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        check_classes(self.name, spec)
        return {
            "encoder": AllConvEncoder(spec.shape, self.latent_dim, width=width, norm_kind=norm),
            "classifier": DenseClassifier(self.latent_dim, spec.classes, norm_kind=norm),
        }

    def phases(self) -> tuple[Phase, ...]:
        update = Update("classifier", ("encoder", "classifier"), (self.loss,))
        return (
            Phase("classifier", self.steps, (update,), recalibrate=Recalibration(update.trains, self.loss, update)),
        )

    def loss(self, nets: SimpleNamespace, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy over the labelled samples."""
        logits = nets.classifier(nets.encoder(batch.x)[0].mean)
        return {"cat": losses.label_cross_entropy(logits, batch.y, batch.label_weight)}
