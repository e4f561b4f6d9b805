"""How commands end."""

from __future__ import annotations

import importlib

import pytest

from binwatch import command_line
from binwatch.errors import BinwatchError


def test_an_error_made_on_purpose_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise BinwatchError("the disk is full; make room")

    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: the disk is full; make room\n")


def test_a_package_that_is_not_installed_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: importlib.import_module("not_installed.at_all"), "worker,cpu")
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: not_installed is not installed; in Binwatch's repository:"
        " pip install -c requirements.lock '.[worker,cpu]'\n"
    )


def test_a_module_of_our_own_that_is_missing_is_our_mistake() -> None:
    with pytest.raises(ModuleNotFoundError, match="worker"):
        command_line.run(lambda: importlib.import_module("worker.not_there"), "worker,cpu")
