"""Removes the exporter's notes from an ONNX file: stack traces name folders of the machine that it ran on."""

from __future__ import annotations

from pathlib import Path

import onnx


def remove_notes(file: Path) -> None:
    """Clear what is noted on the graph, its nodes and its values. What the model computes stays as it is."""
    model = onnx.load(file)
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, file)
