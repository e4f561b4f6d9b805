"""The nightly run: what the model in use has not counted is counted in one go, by the workers or by another backend."""
