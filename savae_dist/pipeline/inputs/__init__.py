"""What people give to a pipeline, as its raw samples: files, folders, URLs, pictures, recordings, arrays."""
