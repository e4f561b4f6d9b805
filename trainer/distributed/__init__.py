"""One training run in several processes."""
