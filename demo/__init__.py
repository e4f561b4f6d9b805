"""The whole of Binwatch on one machine: embedded S3 and SQS, a worker, the monitor, and photos put in by a camera."""
