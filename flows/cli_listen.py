"""The verbs that listen to live sources."""

import typer

listen_app = typer.Typer(help="Take in live readings.", no_args_is_help=True)
