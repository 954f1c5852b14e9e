"""A run's configuration: its keys, their defaults and their checks. Nothing here loads torch."""
