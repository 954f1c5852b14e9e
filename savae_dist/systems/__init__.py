"""The systems; `system.name` chooses one: its dataclass, or an instance with the defaults of a member of a family."""

from savae_dist.phases import System
from savae_dist.systems.aae import AAE
from savae_dist.systems.savae import SAVAE

SYSTEMS: dict[str, type[System] | System] = {
    "savae": SAVAE,
    "aae_unsupervised": AAE("aae_unsupervised"),
    "aae_supervised": AAE("aae_supervised", label_to="decoder", latent_dim=15),
    "aae_semi_supervised": AAE("aae_semi_supervised", label_to="code", latent_dim=10),
}

__all__ = ["AAE", "SAVAE", "SYSTEMS"]
