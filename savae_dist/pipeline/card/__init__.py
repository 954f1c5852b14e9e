"""The model card of a pipeline."""
