"""Photos and labels → checkpoints."""
