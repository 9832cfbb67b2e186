"""Why a group does not take a member in, and what to do about it."""

from __future__ import annotations

__all__ = ["LASTING", "REMEDIES"]

_STRATEGY = "partition.assignment.strategy"

# Code -> what it means and what to do. They pass when the others in the group change; we go on asking to be let in.
REMEDIES = {
    "INCONSISTENT_GROUP_PROTOCOL": (
        f"its members share no assignment strategy with us ({_STRATEGY}), or use the other group.protocol. Either stop all"
        f' old members first; or run new ones with Cluster(settings={{"{_STRATEGY}": "range"}}), as the old ones have; or'
        f' change the strategy in two rolls, first to "cooperative-sticky,range" on all members'
    ),
    "GROUP_MAX_SIZE_REACHED": "it has as many members as the brokers' group.max.size allows: stop some, or raise that",
    "UNRELEASED_INSTANCE_ID": (
        "another member still has our group.instance.id: stop that one, or give each member its own"
    ),
    "UNSUPPORTED_ASSIGNOR": (
        "the brokers do not know the assignor of group.remote.assignor, or of the group: choose one of their"
        " group.consumer.assignors"
    ),
    "INVALID_SESSION_TIMEOUT": (
        "session.timeout.ms is outside what the brokers allow: between their group.min.session.timeout.ms and"
        " group.max.session.timeout.ms"
    ),
}

# Our own settings are at fault: nobody else can mend it.
LASTING = frozenset(("UNSUPPORTED_ASSIGNOR", "INVALID_SESSION_TIMEOUT"))
