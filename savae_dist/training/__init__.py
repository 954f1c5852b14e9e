"""How a system is trained: the engine, and all that it needs."""
