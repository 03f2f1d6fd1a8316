"""How clients reach the broker: its addresses, encryption, and who they are."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from recsys.errors import SettingsError
from recsys.settings import KafkaSettings


def aiokafka_options(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of aiokafka is made with.

    Raises:
        SettingsError: a certificate or a key cannot be read.
    """
    options: dict[str, Any] = {"bootstrap_servers": settings.bootstrap_servers}
    if settings.security_protocol != "PLAINTEXT":
        options |= {"security_protocol": settings.security_protocol, "ssl_context": ssl_context(settings)}
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return options


def librdkafka_options(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of confluent-kafka is made with.

    Raises:
        SettingsError: a certificate or a key cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "log_level": 0,
    }
    if ssl_context(settings) is not None:  # made to find out that the files are good, in the same words
        files = {"ca": settings.ssl_ca, "certificate": settings.ssl_cert, "key": settings.ssl_key}
        options |= {f"ssl.{name}.location": path for name, path in files.items() if path}
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": settings.sasl_password.get_secret_value(),
        }
    return options


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """The context of encrypted connections; None where they are not encrypted.

    Raises:
        SettingsError: a certificate or a key cannot be read.
    """
    if not settings.security_protocol.endswith("SSL"):
        return None
    for name in ("ssl_ca", "ssl_cert", "ssl_key"):
        path = getattr(settings, name)
        if path and not Path(path).is_file():
            raise SettingsError(f"settings: kafka.{name}: {path}: no such file")
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca or None)
        if settings.ssl_cert:
            context.load_cert_chain(settings.ssl_cert, settings.ssl_key or None)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"settings: kafka.ssl_ca, ssl_cert, ssl_key: not PEM files that fit: {error}") from None
    return context
