"""The only code that knows librdkafka's settings, errors and statistics, and what brokers say of topics and groups."""
