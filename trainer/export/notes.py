"""Removes the exporter's notes from an ONNX file. They contain stack traces, which name folders of this machine."""

from __future__ import annotations

from pathlib import Path

import onnx


def remove_notes(file: Path) -> None:
    """Clear the notes of the graph, its nodes and its values. The computation stays as it is."""
    model = onnx.load(file)
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, file)
