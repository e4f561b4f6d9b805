"""What the trainer's and the worker's parts on Amazon SageMaker have in common: the settings, and requests to AWS."""
