"""S3 events → Celery → ONNX Runtime in batches → records."""
