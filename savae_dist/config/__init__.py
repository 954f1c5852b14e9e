"""A run's configuration: its keys, and how they are read."""
