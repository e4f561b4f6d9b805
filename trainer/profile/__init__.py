"""`profile`: the duration of each part of a training step, the limit of the machine, and the cost of training on it."""
