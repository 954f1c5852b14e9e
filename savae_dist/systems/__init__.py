"""The systems, each with the defaults of its paper; `system.name` chooses one."""

from savae_dist.systems.aae import AAE
from savae_dist.systems.ava import AVA
from savae_dist.systems.classifier import PlainClassifier
from savae_dist.systems.dfc_vae import DFCVAE
from savae_dist.systems.gan import DCGAN, LSGAN, WGAN
from savae_dist.systems.phases import System
from savae_dist.systems.savae import SAVAE
from savae_dist.systems.vae import VAE
from savae_dist.systems.vae_gan import VAEGAN

SYSTEMS: dict[str, System] = {
    "savae": SAVAE(latent_dim="auto"),
    "vae": VAE(latent_dim="auto"),
    "dfc_vae": DFCVAE(),
    "vae_wgan": DFCVAE("vae_wgan", adversarial="wasserstein"),
    "vae_gan": VAEGAN(),
    "aae_unsupervised": AAE("aae_unsupervised"),
    "aae_supervised": AAE("aae_supervised", label_to="decoder", latent_dim=15),
    "aae_semi_supervised": AAE("aae_semi_supervised", label_to="code", latent_dim=10),
    "ava1": AVA("ava1"),
    "ava2": AVA("ava2"),
    "ava3": AVA("ava3"),
    "ava4": AVA("ava4"),
    "ava5": AVA("ava5"),
    "dcgan": DCGAN(),
    "wgan": WGAN(),
    "lsgan": LSGAN(),
    "classifier": PlainClassifier(),
}

__all__ = ["AAE", "AVA", "DCGAN", "DFCVAE", "LSGAN", "SAVAE", "SYSTEMS", "VAE", "VAEGAN", "WGAN", "PlainClassifier"]
