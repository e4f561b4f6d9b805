"""Counting over HTTP, as SageMaker asks for it: `python -m worker serve`."""
