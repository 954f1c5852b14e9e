"""What classifiers see: classes, attributes, and how far they can be gamed."""
