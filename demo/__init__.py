"""Binwatch on one machine: embedded S3 and SQS, a worker, the monitor, and a simulated camera that uploads photos."""
