"""The checkpoints of a run: what they hold, when they are written, and which of them stay."""
