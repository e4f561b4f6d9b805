"""Servers and inputs that tests and benchmarks share, so that they need not import each other."""
