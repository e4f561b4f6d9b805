"""Files and folders that a command names are looked for before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.drawn import Data

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from trainer.__main__ import main; main()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit --photos nowhere --index INDEX --out run", "nowhere: no such folder or tar of photos"),
        ("fit --photos PHOTOS --index none.csv --out run", "none.csv: cannot be read (No such file or directory)"),
        ("fit --photos PHOTOS --out run", "PHOTOS: what do these photos show? Give an index"),
        ("fit --photos PHOTOS --index INDEX --out run --set distil.teachers=['one.pt']", "one.pt: no such checkpoint"),
        ("fit --photos PHOTOS --index INDEX --out FITTED", "FITTED: holds a run already"),
        ("fit --config none.toml --out run", "none.toml: cannot be read (No such file or directory)"),
        ("fit --from-study nowhere --out run", "nowhere: holds no study; run: python -m trainer tune"),
        ("fit --out nowhere --resume", "nowhere/last.pt: no such checkpoint"),
        ("tune --photos nowhere --index INDEX --out study", "nowhere: no such folder or tar of photos"),
        ("profile --photos nowhere --index INDEX", "nowhere: no such folder or tar of photos"),
        ("profile --photos PHOTOS --index INDEX --prices none.csv", "none.csv: cannot be read"),
        ("evaluate none.pt", "none.pt: no such checkpoint"),
        ("evaluate FITTED", "FITTED: is the folder of a run; name its checkpoint, FITTED/best.pt"),
        ("evaluate PHOTOS", "PHOTOS/card.json: cannot be read (No such file or directory)"),
        ("evaluate FITTED/best.pt --photos nowhere", "nowhere: no such folder or tar of photos"),
        ("compare FITTED/best.pt none.pt", "none.pt: no such checkpoint"),
        ("compare FITTED/best.pt FITTED/last.pt --index none.csv", "none.csv: cannot be read"),
        ("export none.pt --out bundle", "none.pt: no such checkpoint"),
        ("promote bundle --photos nowhere", "nowhere: no such folder or tar of photos"),
        ("pipeline --config none.toml --work work", "none.toml: cannot be read (No such file or directory)"),
    ],
)
def test_a_path_that_is_wrong(data: Data, fitted: Path, tmp_path: Path, arguments: str, message: str) -> None:
    def filled(text: str) -> str:
        for name, path in (("PHOTOS", data.photos), ("INDEX", data.index), ("FITTED", fitted)):
            text = text.replace(name, str(path))
        return text

    command = [sys.executable, "-c", WITHOUT_TORCH, *filled(arguments).split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {filled(message)}")
    assert list(tmp_path.iterdir()) == []
