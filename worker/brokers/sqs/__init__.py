"""SQS queues, with boto3."""
