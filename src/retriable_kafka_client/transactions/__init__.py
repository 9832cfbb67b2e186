"""Transactions of exactly-once consumers: calls that block, all on one thread of their own."""
