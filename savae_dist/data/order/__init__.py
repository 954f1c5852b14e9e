"""Which sample stands at which position."""
