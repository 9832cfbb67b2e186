"""The public Consumer and the thread that runs it: its client, its callbacks, what it asks and publishes."""
