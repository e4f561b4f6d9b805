"""A CPU whose int8 products saturate, emulated by qemu-user, gives the same counts as this one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.other_cpus import missing_requirement, outputs_of_cpu
from binwatch import self_check
from tests.worker.quantised import write_quantised_bundle


@pytest.fixture(scope="module", autouse=True)
def _qemu() -> None:
    reason = missing_requirement()
    if reason and "qemu-user" in reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.mark.timeout(900)  # qemu is slow on a busy machine
def test_a_cpu_without_vnni_counts_the_same(tmp_path: Path) -> None:
    model, pixels = write_quantised_bundle(tmp_path / "model"), tmp_path / "photos.npy"
    np.save(pixels, self_check.make_photos(224))
    native, emulated = outputs_of_cpu(None, model, pixels), outputs_of_cpu("Haswell", model, pixels)
    assert emulated.options == "session.x64quantprecision=1"
    assert emulated.self_check == native.self_check == "int8 passed"
    np.testing.assert_allclose(emulated.probabilities, native.probabilities, atol=1e-5)

    plain = outputs_of_cpu("Haswell", model, pixels, plain=True)
    assert plain.options == "none"
    assert np.abs(plain.probabilities - native.probabilities).max() > 0.01  # otherwise this test would detect nothing
