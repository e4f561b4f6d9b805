"""Shared by the trainer, the worker and the monitor: photos, S3 events, the model bundle, records.

Nothing here imports torch, Celery or a web framework, so that each container loads only what it needs.
"""
