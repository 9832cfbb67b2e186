"""How slices of messages reach threads, processes and coroutines, and what a worker does with a message."""
