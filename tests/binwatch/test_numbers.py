"""Strict parsing of numbers: plain decimal notation only, unlike Python's int() and float()."""

from __future__ import annotations

import pytest
import typer

from binwatch import command_line
from binwatch.errors import SettingsError, quote_value
from binwatch.numbers import parse_float, parse_int
from binwatch.settings import load_settings


@pytest.mark.parametrize(("text", "value"), [("5", 5), (" 12 ", 12), ("-3", -3), ("+4", 4), ("007", 7), ("0", 0)])
def test_whole_numbers(text: str, value: int) -> None:
    assert parse_int(text) == value
    assert parse_float(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1.50", 1.5), (".5", 0.5), ("2.", 2.0), ("1e-3", 0.001), ("-1.5E2", -150)]
)
def test_numbers(text: str, value: float) -> None:
    assert parse_float(text) == value
    assert parse_int(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "1_0",
        "1_000.5",
        "\u0661\u0662",
        "",
        " ",
        "five",
        "0x10",
        "1 0",
        "inf",
        "nan",
        "--1",
        "1e",
        "\u00b2",
        "9" * 400 + "x",
    ],
)
def test_other_texts_are_not_numbers(text: str) -> None:
    assert (parse_int(text), parse_float(text)) == (None, None)


def test_settings_are_parsed_equally_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_BATCH_SIZE", "8")
    assert load_settings().batch_size == 8
    monkeypatch.setenv("BINWATCH_BATCH_SIZE", "1_0")
    with pytest.raises(SettingsError, match=r"BINWATCH_BATCH_SIZE.*expected a number, in digits"):
        load_settings()


@pytest.mark.parametrize("option", ["--trials", "--share"])
def test_options_are_parsed_equally_strictly(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    calls: list[tuple[int, float]] = []

    @app.command()
    def inner(trials: int = typer.Option(1, min=1), share: float = 0.5) -> None:
        calls.append((trials, share))

    @app.command()
    def other() -> None:
        pass

    monkeypatch.setattr("sys.argv", ["program", "inner", "--trials", "3", "--share", "0.25"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, calls) == (0, [(3, 0.25)])
    monkeypatch.setattr("sys.argv", ["program", "inner", option, "1_0"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, len(calls)) == (2, 1)
    assert capsys.readouterr().err == f"error: {option} '1_0' is not a number; write it in digits\n"
    monkeypatch.setattr("sys.argv", ["program", "inner", f"{option}=1_0"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, len(calls)) == (2, 1)


def test_a_command_line_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(add_completion=False)
    calls: list[float] = []

    @app.command()
    def only(share: float = 0.5) -> None:
        calls.append(share)

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, "demo")
    assert (ended.value.code, calls) == (0, [0.5])


def test_long_values_are_shortened_in_messages() -> None:
    assert quote_value("five") == "'five'"
    assert quote_value("a\x1b[31m\n") == r"'a\x1b[31m\n'"
    assert len(quote_value("x" * 300_000)) < 70
    assert quote_value("x" * 300_000).endswith("…")
    assert len(quote_value({"a": "y" * 300_000})) < 70
