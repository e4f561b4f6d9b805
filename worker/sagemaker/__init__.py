"""What a worker does on Amazon SageMaker: the serving container, and the nightly run in batch transform jobs.

All requests are boto3's. A worker creates, describes, stops and deletes models and transform jobs, each by a name that
makes the request idempotent; SageMaker's SDK would only add its packages to the image (docs/architecture.md).
"""
