"""What a run will need, known before it trains: memory, traffic, time."""
