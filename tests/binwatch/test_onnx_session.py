"""The probe for CPUs whose int8 products saturate, and the session options that depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest

from binwatch import int8_probe, onnx_session
from binwatch.onnx_session import exact_int8_options


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    exact_int8_options.cache_clear()
    yield
    exact_int8_options.cache_clear()


def test_the_probe_is_a_valid_onnx_model() -> None:
    model = onnx.load_from_string(int8_probe.build_model())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["QLinearConv", "QLinearMatMul"]
    assert {value.name for value in model.graph.input} == set(int8_probe.build_inputs())


def test_int8_products_are_exact_on_this_cpu_with_the_options() -> None:
    session = onnx_session.open_session(int8_probe.build_model())
    assert int8_probe.is_exact(session.run(None, int8_probe.build_inputs()))


def _cpu(saturates: Callable[[dict[str, str]], bool | None]) -> Callable[..., object]:
    """Return a session factory of a CPU that saturates with some options; None means the session cannot be opened."""

    class Session:
        def __init__(self, _: object, __: object, ___: int, entries: dict[str, str]) -> None:
            if saturates(entries) is None:
                raise RuntimeError("Attempt to replace the existing tensor")
            self.value = 101 if saturates(entries) else int8_probe.EXACT_OUTPUT

        def run(self, _: object, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.full((2, 2), self.value, np.uint8) for _ in inputs]

    return Session


@pytest.mark.parametrize(
    ("saturates", "options", "warned"),
    [
        (lambda entries: False, {}, False),
        (lambda entries: not entries, {"session.x64quantprecision": "1"}, False),
        (lambda entries: True, {"session.x64quantprecision": "1"}, True),
        (lambda entries: None if entries else True, {"session.x64quantprecision": "1"}, True),
    ],
    ids=["VNNI", "no VNNI", "no help", "the option is refused"],
)
def test_session_options_depend_on_the_cpu(
    saturates: Callable[[dict[str, str]], bool | None],
    options: dict[str, str],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(onnx_session, "_create_session", _cpu(saturates))
    assert exact_int8_options() == options
    assert ("int8 products saturate on this CPU" in caplog.text) is warned
