"""Counts photos over HTTP with SageMaker's protocol: `python -m worker serve`."""
