"""Pages that tell of runs: one HTML file each, with all that it shows inside, read from the files of a folder."""
