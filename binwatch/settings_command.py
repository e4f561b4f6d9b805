"""The command `binwatch settings`."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import SecretStr

from binwatch.console import remark
from binwatch.settings import Settings, load_settings, setting_text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def settings(
    changed: Annotated[
        bool, typer.Option("--changed", help="Print only settings that differ from their default.")
    ] = False,
) -> None:
    """Print every setting with its value in this environment, its default and its description. Secrets are hidden.

    A setting is an environment variable; docs/settings.md has its type and limits.
    """
    values = load_settings().values()
    variables = Settings.variables()
    listed = {name: field for name, field in variables.items() if not changed or values[name] != field.default}
    for variable, field in listed.items():
        value, default = values[variable], field.default
        note = "" if value == default else f"  (default: {setting_text(default)})"
        is_secret = isinstance(value, SecretStr) and value != default
        typer.echo(f"{variable}={'********' if is_secret else setting_text(value)}{note}\n    {field.description}")
    if not listed:
        remark("no setting differs from its default", to_stderr=True)
