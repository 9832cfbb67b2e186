"""What of the standard library gevent may have replaced, although threads are real ones: as it is."""

from _queue import Empty, SimpleQueue

__all__ = ["Empty", "SimpleQueue"]
