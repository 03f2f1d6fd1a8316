"""By which key the user ids of a dataset are hashed, if by any: all of its logs must agree."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.errors import InputError, SettingsError
from recsys.logs.sources import Source
from recsys.pseudonyms import Pseudonyms


def key_of(sources: Sequence[Source], pseudonyms: Pseudonyms | None) -> str | None:
    """What the key is called; None where user ids are in clear.

    Raises:
        SettingsError: a log was hashed by another key than the one that is set.
        InputError: none is set, and the logs do not agree.
    """
    first = sources[0]
    for source in sources:
        if pseudonyms is not None and source.key not in (None, pseudonyms.key):
            raise SettingsError(f"settings: privacy.key: {source.name} has user ids hashed by another, {source.key}")
        if pseudonyms is None and source.key != first.key:
            raise InputError(
                f"{first.name} and {source.name} have user ids hashed by different keys, or in clear: build a dataset "
                "of each, or set privacy.key if it is the one key"
            )
    return first.key if pseudonyms is None else pseudonyms.key
