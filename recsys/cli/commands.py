"""The commands of the command line, and how they end.

Commands are entry points of the group ``recsys.commands``: the stream and the pipelines add theirs from outside, so
this package imports neither, and a command that is not called is not loaded.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as installed_version

import click
from rich.text import Text

from recsys.cli.ctrl_c import STOPPED, ends_at_ctrl_c
from recsys.console import console
from recsys.errors import IO_ERROR, RecsysError

GROUP = "recsys.commands"
# The order of work.
ORDER = ["demo", "generate", "sessions", "stream-sessions", "profile", "train", "tune", "evaluate", "recommend"]
ORDER += ["publish", "promote", "rollback", "services", "worker", "replay", "dead-letter", "archive", "forget", "api"]
ORDER += ["settings"]


class Commands(click.Group):
    """Finds commands among the installed entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of work; any that others add come last."""
        names = entry_points(group=GROUP).names
        return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command called ``cmd_name``."""
        found: EntryPoint | None = next(iter(entry_points(group=GROUP, name=cmd_name)), None)
        if found is None:
            return None
        with ends_at_ctrl_c():
            command = found.load()
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(installed_version("recsys"), prog_name="recsys")
def cli() -> None:
    """A streaming session-based recommender.

    \b
    recsys demo                 the whole system on this machine, in some minutes
    recsys COMMAND --help       what a command does, with an example
    """


def run() -> None:
    """Run the command line; errors end it with a sentence and the code that :mod:`recsys.errors` lists."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RecsysError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        place = f": {error.filename}" if error.filename is not None else ""
        _say(f"cannot read or write: {error.strerror or error}{place}")
        sys.exit(IO_ERROR)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in {"recsys", "pipelines", "stream"}:
            raise
        _say(
            f"this command needs the package '{error.name}': install recsys with the extra that brings it (pipelines, "
            "train, stream, api or all)"
        )
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        console.print("stopped")
        sys.exit(STOPPED)


def _say(error: str) -> None:
    from recsys.service_log import last_words

    if last_words(error):
        return
    console.print(Text.assemble(("error:", "bold red"), " ", error), soft_wrap=True)
