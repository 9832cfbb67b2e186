"""The Python process around us: forks, its end, signals, patched threads. Nothing of Kafka."""
