"""The systems; `system.name` chooses one."""

from savae_dist.systems.savae import SAVAE

SYSTEMS = {
    "savae": SAVAE,
}

__all__ = ["SAVAE", "SYSTEMS"]
