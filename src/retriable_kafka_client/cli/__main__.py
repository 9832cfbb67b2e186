"""`python -m retriable_kafka_client.cli` is `rkc`."""

from retriable_kafka_client.cli import main

if __name__ == "__main__":
    main()
