"""How the command reaches a cluster: options, and for what must not stand on a command line, the environment."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from retriable_kafka_client.cli.ending import Code, CommandFailed
from retriable_kafka_client.config import Cluster

__all__ = ["cluster_of"]


class _Environment(BaseSettings):
    """RKC_USERNAME, RKC_PASSWORD and so on."""

    model_config = SettingsConfigDict(env_prefix="RKC_", env_ignore_empty=True, hide_input_in_errors=True)

    username: str | None = None
    password: SecretStr | None = None
    security_protocol: str | None = None
    sasl_mechanism: str = "SCRAM-SHA-512"
    settings: dict[str, Any] = {}


def cluster_of(bootstrap_servers: str) -> Cluster:
    """Return the cluster that is meant. Raises CommandFailed and ConfigError; neither shows a secret."""
    try:
        given = _Environment()
    except (ValidationError, SettingsError):
        raise CommandFailed(
            Code.USAGE,
            'RKC_SETTINGS: must be a JSON object of librdkafka\'s names, as in {"ssl.ca.location": "ca.pem"}',
        ) from None
    return Cluster(
        bootstrap_servers,
        username=given.username,
        password=None if given.password is None else given.password.get_secret_value(),
        security_protocol=given.security_protocol,
        sasl_mechanism=given.sasl_mechanism,
        settings=given.settings,
    )
