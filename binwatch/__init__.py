"""What the trainer, the worker and the monitor share: photos, S3 events, the model bundle, records.

Nothing in here imports torch, Celery or a web framework, so that each container pays only for its own part.
"""
