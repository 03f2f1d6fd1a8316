"""Why lines were rejected, in words for people."""

from __future__ import annotations

_OF_A_FIELD = {
    "control_character": "with a control character",
    "empty": "empty",
    "format": "in no form that is known",
    "future": "in the future",
    "missing": "missing",
    "negative": "before 1970",
    "not_unicode": "no Unicode text",
    "out_of_range": "out of range",
    "too_long": "too long",
    "type": "of another type",
}
_OF_A_LINE = {
    "bad_quotes": "quotes that do not match",
    "no_events": "no list of events",
    "not_an_object": "no JSON object",
    "not_json": "no JSON",
    "not_utf8": "no UTF-8 text",
    "too_large": "too large",
    "wrong_fields": "wrong number of fields",
}


def in_words(code: str) -> str:
    """What the ``code`` of a dead letter means, such as "item id: empty" for ``item_id.empty``."""
    field, dot, reason = code.rpartition(".")
    words = (_OF_A_FIELD if dot else _OF_A_LINE).get(reason, reason.replace("_", " "))
    return f"{field.replace('_', ' ')}: {words}" if dot else words
