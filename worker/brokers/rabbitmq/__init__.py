"""Queues of RabbitMQ, by kombu."""
