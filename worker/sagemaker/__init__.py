"""The worker's parts on Amazon SageMaker: the serving container, and the nightly run in batch transform jobs.

All requests are sent with boto3. A worker creates, describes, stops and deletes models and transform jobs, under names
that make the requests idempotent; SageMaker's SDK would only add its packages to the image (docs/architecture.md).
"""
