"""From positions to batches."""
