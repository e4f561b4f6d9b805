"""Message brokers: SQS and RabbitMQ behind one interface. No other module asks which one it is."""
