"""Trained networks with their preprocessing, ready to use."""

from savae_dist.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
