"""Queues of SQS, by boto3."""
