"""Names that stand for user ids: HMAC-SHA-256 of the id by a secret key.

The same key gives a user the same name everywhere, so logs, archives and datasets still fit together. Who does not have
the key can neither tell who it is nor try out ids. A name is 32 hexadecimal digits, 128 bits.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.settings import PrivacySettings

KEY_METADATA = b"recsys.pseudonyms"  # in the footer of a Parquet file whose user ids are such names: the key's id
_DIGITS = 32
_ID_DIGITS = 8


class Pseudonyms:
    """The names that one key gives."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_settings(cls, privacy: PrivacySettings) -> Pseudonyms | None:
        """Those of the key that is set; None where none is."""
        secret = privacy.key.get_secret_value()
        return cls(secret.encode()) if secret else None

    @property
    def key(self) -> str:
        """What the key is called, which gives nothing of it away."""
        return self.of("\0key")[:_ID_DIGITS]  # no user has such an id

    def of(self, text: str) -> str:
        """The name for a user id."""
        return self.of_all([text])[0]

    def of_all(self, texts: Iterable[str]) -> list[str]:
        """The name for each of many user ids."""
        keyed = hmac.new(self._secret, digestmod="sha256")
        names = []
        for text in texts:
            each = keyed.copy()  # much faster than a new one
            each.update(text.encode())
            names.append(each.hexdigest()[:_DIGITS])
        return names
