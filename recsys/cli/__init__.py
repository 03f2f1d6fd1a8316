"""The one command line, ``recsys``."""

from __future__ import annotations

from recsys.cli.ctrl_c import ends_at_ctrl_c


def main() -> None:
    """Run the command line; see :func:`recsys.cli.commands.run`."""
    with ends_at_ctrl_c():
        from recsys.cli.commands import run
    run()
