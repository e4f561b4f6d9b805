"""RabbitMQ queues, with kombu."""
