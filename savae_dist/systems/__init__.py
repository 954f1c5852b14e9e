"""The systems; `system.name` chooses one, whose factory gives its defaults."""

from collections.abc import Callable

from savae_dist.phases import System
from savae_dist.systems.dfc_vae import DFCVAE, vae_wgan
from savae_dist.systems.savae import SAVAE
from savae_dist.systems.vae import VAE

SYSTEMS: dict[str, Callable[[], System]] = {
    "savae": SAVAE,
    "vae": VAE,
    "dfc_vae": DFCVAE,
    "vae_wgan": vae_wgan,
}

__all__ = ["DFCVAE", "SAVAE", "SYSTEMS", "VAE", "vae_wgan"]
