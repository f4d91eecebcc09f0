"""A command group whose errors are for people."""

import shlex
import sys
from typing import Any

import click


class Commands(click.Group):
    """Turns what the user can mend into one line and exit code 2, and Ctrl-C into one line and 130."""

    def invoke(self, ctx: click.Context) -> Any:
        from toolkit.errors import ToolkitError

        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            again = shlex.join(["python", "cli.py", *sys.argv[1:]])
            click.echo(f"\nInterrupted. Everything finished is kept; go on with: {again}", err=True)
            ctx.exit(130)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            click.echo(f"Error: {error.strerror or error}{place}. What was stored before is kept.", err=True)
            ctx.exit(2)
