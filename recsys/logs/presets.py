"""How the public click logs that people have are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recsys.logs.sources import Layout
from recsys.times import TimeUnit


@dataclass(frozen=True)
class Preset:
    """The column of each event field, how files are laid out, and how they tell time."""

    columns: Mapping[str, str]
    layout: Layout = field(default_factory=Layout)
    unit: TimeUnit = "ms"
    pattern: str | None = None


PRESETS = {
    # RecSys Challenge 2015, yoochoose-clicks.dat: no header, times like 2014-04-07T10:51:09.277Z.
    "yoochoose": Preset(
        {"session_id": "session", "timestamp": "timestamp", "item_id": "item"},
        Layout(header=("session", "timestamp", "item", "category"), delimiter=","),
    ),
    # CIKM Cup 2016, train-item-views.csv: a date, and milliseconds since the first query of the session.
    "diginetica": Preset(
        {"session_id": "sessionId", "item_id": "itemId", "date": "eventdate", "timestamp": "timeframe"},
        Layout(delimiter=";"),
    ),
    # Retailrocket, events.csv.
    "retailrocket": Preset(
        {"user_id": "visitorid", "item_id": "itemid", "timestamp": "timestamp", "event_type": "event"}
    ),
    # OTTO, *.jsonl: a session a line.
    "otto": Preset(
        {"session_id": "session", "item_id": "aid", "timestamp": "ts", "event_type": "type"}, Layout(events="events")
    ),
    # REES46 eCommerce behavior data, 2019-Oct.csv and its like.
    "rees46": Preset(
        {
            "user_id": "user_id",
            "session_id": "user_session",
            "item_id": "product_id",
            "timestamp": "event_time",
            "event_type": "event_type",
        },
        pattern="%Y-%m-%d %H:%M:%S UTC",
    ),
    # Globo.com, clicks_hour_*.csv.
    "globo": Preset(
        {
            "user_id": "user_id",
            "session_id": "session_id",
            "item_id": "click_article_id",
            "timestamp": "click_timestamp",
        }
    ),
}
