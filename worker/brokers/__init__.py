"""Message brokers: SQS and RabbitMQ behind one interface. Other modules do not distinguish the two."""
