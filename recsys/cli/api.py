"""``recsys api``: the lookup API."""

from __future__ import annotations

import click

from recsys.cli.ctrl_c import ends_at_ctrl_c
from recsys.cli.options import with_settings
from recsys.settings import Settings


@click.command()
@with_settings("bundles", "api", "redis", "kafka", "log")
def api(settings: Settings) -> None:
    """Serve recommendations over HTTP, and take clicks in.

    Needs a published bundle. Starts without the store and the broker too: lookups then fall back to the model and
    popular items, /health/ready says what is missing, and events are refused until the broker is there.

    \b
    recsys api --bundles bundles --port 8080
    curl 'http://127.0.0.1:8080/v1/recommendations?user_id=u-1&item_id=214748'
    """
    with ends_at_ctrl_c():
        from recsys.api.server import serve

    serve(settings)
