"""The worker on Amazon SageMaker: the serving container, and nightly runs in batch transform jobs.

All requests are sent with boto3, under names that make them idempotent. A worker only creates, describes, stops and
deletes models and transform jobs, so SageMaker's SDK would only add its packages to the image (docs/architecture.md).
"""
