"""A run's configuration: its keys with their defaults, and what is asked of them. Nothing here loads torch."""
