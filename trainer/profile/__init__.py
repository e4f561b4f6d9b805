"""`profile`: measures each part of a training step, what limits training on this machine, and what it costs."""
