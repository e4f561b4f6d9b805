"""`profile`: where the time of a training step goes, what that says of the machine, and what training costs on it."""
