"""Real servers and inputs for tests and benchmarks, which import nothing from each other."""
