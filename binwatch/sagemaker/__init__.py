"""Settings for Amazon SageMaker and requests to AWS, shared by the trainer and the worker."""
