"""The nightly run: what the model in use has not counted yet is counted in one go, by the workers or on SageMaker."""
