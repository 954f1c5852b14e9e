"""Zemouri 2020, figure 9: what beta and gamma do to the reconstructions, for several K, judged independently."""
