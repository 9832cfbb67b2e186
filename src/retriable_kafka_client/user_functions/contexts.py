"""The ``contextvars`` context in which each call of a user's function runs."""

from __future__ import annotations

from contextvars import Context, copy_context

__all__ = ["base_context"]


def base_context(started_in: Context | None) -> Context:
    """What the contexts of this thread's runs are copies of; nothing is ever run in it itself.

    That is the context in which the consumer was started, and over it what stands in this thread's own: what the
    initializer of a user's pool has set. None (in another process): this thread's own alone.
    """
    own = copy_context()
    if started_in is None:
        return own
    if not own:
        return started_in
    base = started_in.copy()
    for variable, value in own.items():
        base.run(variable.set, value)
    return base
