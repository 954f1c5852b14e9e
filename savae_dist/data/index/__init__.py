"""Where each sample lies in its shards."""
