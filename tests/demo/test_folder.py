"""Tests of the demo's working folder: when it is kept or removed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from demo import folder as demo_folder
from demo.folder import count_audits, database_of, working_folder


def test_unreadable_records_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended, working_folder(Console(), None, "binwatch") as folder:
        _damage_and_end(folder)
    assert ended.value.code == 128 + signal.SIGTERM
    assert database_of(folder).read_bytes() == b"damaged" * 1000


def _damage_and_end(folder: Path) -> NoReturn:
    database_of(folder).write_bytes(b"damaged" * 1000)
    raise SystemExit(128 + signal.SIGTERM)


def test_second_interrupt_while_counting_audits_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Path) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(demo_folder, "count_audits", interrupt)
    with pytest.raises(KeyboardInterrupt), working_folder(Console(), None, "binwatch") as folder:
        raise KeyboardInterrupt
    assert folder.exists()


def test_folder_without_audits_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), working_folder(Console(), None, "binwatch") as folder:
        raise KeyboardInterrupt
    assert not folder.exists()


def test_folder_name_with_special_characters(tmp_path: Path) -> None:
    with working_folder(Console(), tmp_path / "what?now 100%41", "binwatch") as folder:
        assert count_audits(folder) == 0
    assert database_of(folder).is_file()
    assert list(tmp_path.iterdir()) == [folder]
