"""One run: its folder, from the first step to the pipeline."""
