"""What a worker does on Amazon SageMaker: the serving container, and the nightly run in batch transform jobs.

All requests are boto3's: a worker needs three operations, each with names that make it idempotent, and SageMaker's SDK
would bring 90 packages into an image that has to start fast (docs/architecture.md).
"""
