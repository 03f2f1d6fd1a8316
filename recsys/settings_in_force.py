"""Reads the settings of a process, and says in words what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError as SettingsSourceError

from recsys.errors import SettingsError
from recsys.settings import IN_WORDS, Settings, settings_file


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process; ``overrides`` are what flags gave.

    Raises:
        SettingsError: names the setting and what is wrong with its value.
    """
    _refuse_strangers()
    try:
        return Settings(**(overrides or {}))
    except ValidationError as error:
        raise SettingsError(f"settings: {'; '.join(_problem(item) for item in error.errors())}") from None
    except (SettingsSourceError, TOMLDecodeError, OSError) as error:
        raise SettingsError(f"settings: {settings_file()}: {error}") from None


def _problem(item: Any) -> str:
    name, words = ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        words = "no such setting" + _nearest(item["loc"])
    elif item["type"] == "string_pattern_mismatch":
        words = f"must be {IN_WORDS[item['ctx']['pattern']]}, is {item['input']!r}"
    return f"{name}: {words}"


def _nearest(place: tuple[str, ...]) -> str:
    """The name that may have been meant."""
    section: Any = Settings
    for name in place[:-1]:
        section = section.model_fields[name].annotation
    near = get_close_matches(place[-1], section.model_fields, 1)
    return f"; is it {'.'.join([*place[:-1], *near])}?" if near else ""


def _refuse_strangers() -> None:
    """A variable or a file that is misspelt would otherwise do nothing, in silence."""
    for variable in os.environ:
        section = variable.removeprefix("RECSYS_").partition("__")[0].lower()
        if variable.startswith("RECSYS_") and section not in {*Settings.model_fields, "settings"}:
            raise SettingsError(f"settings: {variable}: there is no section or setting '{section}'")
    if "RECSYS_SETTINGS" in os.environ and not settings_file().is_file():
        raise SettingsError(f"settings: RECSYS_SETTINGS: {settings_file()}: no such file")
