"""The systems; `system.name` chooses one."""

from savae_dist.systems.gan import DCGAN, LSGAN, WGAN
from savae_dist.systems.savae import SAVAE
from savae_dist.systems.vae_gan import VAEGAN

SYSTEMS = {
    "savae": SAVAE,
    "vae_gan": VAEGAN,
    "dcgan": DCGAN,
    "wgan": WGAN,
    "lsgan": LSGAN,
}

__all__ = ["DCGAN", "LSGAN", "SAVAE", "SYSTEMS", "VAEGAN", "WGAN"]
