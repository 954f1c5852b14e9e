"""The systems; `system.name` chooses one: its dataclass, or an instance with the defaults of a member of a family."""

from savae_dist.phases import System
from savae_dist.systems.dfc_vae import DFCVAE
from savae_dist.systems.savae import SAVAE
from savae_dist.systems.vae import VAE

SYSTEMS: dict[str, type[System] | System] = {
    "savae": SAVAE,
    "vae": VAE,
    "dfc_vae": DFCVAE,
    "vae_wgan": DFCVAE("vae_wgan", adversarial="wasserstein"),
}

__all__ = ["DFCVAE", "SAVAE", "SYSTEMS", "VAE"]
