"""Intake: raw S3 event messages → groups of photos and metadata files → Celery tasks."""
