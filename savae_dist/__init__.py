"""A distributed large-scale trainer for adversarial variational autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["Classifier", "Critic", "Decoder", "Encoder", "Pipeline", "Prior", "__version__"]

if TYPE_CHECKING:
    from savae_dist.networks import Classifier, Critic, Decoder, Encoder, Prior
    from savae_dist.pipeline.pipeline import Pipeline
else:

    def __getattr__(name: str) -> type:
        """A class of `__all__`, imported when it is first asked for: torch takes seconds to load."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from savae_dist.networks import Classifier, Critic, Decoder, Encoder, Prior
        from savae_dist.pipeline.pipeline import Pipeline

        public = (Classifier, Critic, Decoder, Encoder, Pipeline, Prior)
        globals().update({one.__name__: one for one in public})
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
