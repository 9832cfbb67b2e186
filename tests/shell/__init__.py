"""The shell against brokers: a contract for mock and real Kafka, real Kafka's own problems, hostile records."""
