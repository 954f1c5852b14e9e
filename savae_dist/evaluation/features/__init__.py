"""Sets of samples compared in the features of a network: distances, coverage, copies."""
