"""The ranks of a launch: how they start, agree, stop and keep out of each other's way."""
