"""Gives the card of a bundle that is there already its self-check: what its files answer to a few made-up photos.

    python -m trainer.self_check BUNDLE

Workers then see at load whether a machine computes the model as this one does. Files and figures stay as they are. Run
it where the model is known to count well: it notes what this machine answers.
"""

from __future__ import annotations

import typer

from binwatch import command_line
from binwatch.bundle import Bundle, write_card
from binwatch.console import remark
from trainer.renew import Folder
from trainer.runtime import OnnxModel, self_check_of

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def main(bundle: Folder) -> None:
    """Write a self-check into a bundle's card."""
    found = Bundle(bundle)
    variants = {
        precision: variant.model_copy(update={"self_check": self_check_of(OnnxModel(found.model(precision)))})
        for precision, variant in found.card.variants.items()
    }
    write_card(bundle, found.card.model_copy(update={"variants": variants}))
    remark(f"{bundle}: self-check of {', '.join(variants)}")


if __name__ == "__main__":
    command_line.run(app, "trainer")
