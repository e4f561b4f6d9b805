"""The command line `python -m trainer`. A command imports its dependencies when it runs, so that --help is instant."""

from __future__ import annotations

import typer

from binwatch import command_line
from trainer.cli import evaluation, export, fit_help, models, pipeline, prepare, profile, train
from trainer.sagemaker.commands import app as sagemaker

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a model that counts items in bin photos.",
)
app.command()(prepare.prepare)
app.command(epilog=fit_help.epilog())(train.fit)
for command in (
    train.tune,
    profile.profile,
    evaluation.evaluate,
    evaluation.compare,
    export.export,
    export.calibrate,
    export.self_check,
    models.models,
    models.publish,
    models.promote,
    models.rollback,
    pipeline.pipeline,
):
    app.command()(command)
app.add_typer(sagemaker, name="sagemaker")


def main() -> None:
    """Run the command line interface."""
    command_line.run(app, "trainer")


if __name__ == "__main__":
    main()
