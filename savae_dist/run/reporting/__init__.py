"""What a run says of itself: status, curves, trackers, warnings, and the closing summary."""
