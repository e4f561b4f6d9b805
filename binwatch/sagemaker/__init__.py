"""Shared by the trainer's and the worker's parts on Amazon SageMaker: settings, and requests to AWS."""
