"""A 0.x program's connection as a Cluster, and whether it works."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from retriable_kafka_client.compat.config import CommonConfig
from retriable_kafka_client.compat.errors import refused
from retriable_kafka_client.config import Cluster
from retriable_kafka_client.errors import OwnedSetting

__all__ = ["HealthCheckClient", "check_connection", "cluster_of", "group_of"]

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0

_SERVERS = ("bootstrap.servers", "metadata.broker.list")
_GROUP = "group.id"
_AT_ONCE = {"linger.ms": 0}


def cluster_of(config: CommonConfig, *, at_once: bool = False, warn: bool = True) -> Cluster:
    """Return the cluster that ``config`` means; ``additional_settings`` win over everything else in it.

    With ``at_once`` a producer waits for no further records to send along. With ``warn`` each setting that is ignored is
    named in the log.
    """
    given = _settings(config)
    servers: Any = config.kafka_hosts
    for name in _SERVERS:
        servers = given.pop(name, servers)
    given.pop(_GROUP, None)
    protocol = None if "security.protocol" in given else "SASL_SSL"
    logs_in = str(given.get("security.protocol", protocol)).upper().startswith("SASL_")
    while True:
        try:
            return Cluster(
                servers,
                # 0.x programs name a user whatever the protocol is.
                username=config.username if logs_in and "sasl.username" not in given else None,
                password=config.password if logs_in and "sasl.password" not in given else None,
                security_protocol=protocol,
                settings={**(_AT_ONCE if at_once else {}), **given},
            )
        except OwnedSetting as error:
            del given[error.name]
            if warn:
                log.warning("additional_settings[%r] is ignored: %s", error.name, error.remedy)


def group_of(config: CommonConfig, group_id: str) -> str:
    """Return the group that a consumer joins."""
    return str(_settings(config).get(_GROUP, group_id))


def _settings(config: CommonConfig) -> dict[str, Any]:
    given = dict(config.additional_settings)
    nested = given.pop("default.topic.config", None)
    if isinstance(nested, Mapping):
        given = {**nested, **given}
    return {name: value for name, value in given.items() if value is not None}


def check_connection(config: CommonConfig) -> bool:
    """Ask the brokers whether they are there and let us in; blocks at most 5 seconds."""
    with refused():
        health = cluster_of(config, warn=False).check(CHECK_SECONDS)
    if not health.ready:
        log.warning("the connection to Kafka does not work: %s", "; ".join(health.reasons))
    return health.ready


class HealthCheckClient:
    """Asks whether the brokers can be used with ``config``."""

    def __init__(self, config: CommonConfig) -> None:
        self.config = config

    def connection_healthcheck(self) -> bool:
        """Whether the brokers are there and let us in. Asks them; blocks at most 5 seconds."""
        return check_connection(self.config)
