"""The environment variables that other tools use for the same settings."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource


class WellKnownNames(PydanticBaseSettingsSource):
    """The environment variables that other tools use for the same addresses."""

    names = MappingProxyType({"KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"), "REDIS_URL": ("redis", "url")})

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Required by the base class; :meth:`__call__` gives all values at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """``{section: {name: value}}`` for each variable that is set."""
        values: dict[str, Any] = {}
        for variable, (section, name) in self.names.items():
            if value := os.environ.get(variable):
                values.setdefault(section, {})[name] = value
        return values
