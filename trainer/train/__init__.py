"""Training: turns photos and labels into checkpoints."""
