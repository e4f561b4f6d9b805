"""Which model the workers use."""
