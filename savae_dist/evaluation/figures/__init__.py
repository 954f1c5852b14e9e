"""Every figure: of a pipeline, of codes and classes, of signals, of training."""
