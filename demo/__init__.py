"""Binwatch on one machine: embedded S3 and SQS, a worker, the monitor, and a camera that uploads photos."""
