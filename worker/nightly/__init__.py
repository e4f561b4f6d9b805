"""The nightly run: counts every photo that the model in use has not counted, in the workers or on SageMaker."""
