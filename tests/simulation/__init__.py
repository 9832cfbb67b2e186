"""Whole consumers over a fake broker, clock and executor, from one integer seed: ``python -m tests.simulation``."""
