"""The command line."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """x"""


@app.command()
def serve(host: str = "127.0.0.1", port: int = 8000, insecure: bool = False) -> None:
    """Start the service."""
    from rewardsvc.http.app import serve as run
    from rewardsvc.settings import Settings

    run(Settings(host=host, port=port, insecure=insecure))
