"""How a system is trained: the engine, and what it takes."""
