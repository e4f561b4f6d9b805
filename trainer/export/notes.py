"""Removes the exporter's metadata from an ONNX file. It contains stack traces, which name folders of this machine."""

from __future__ import annotations

from pathlib import Path

import onnx


def remove_notes(file: Path) -> None:
    """Clear metadata and documentation of the graph, its nodes and its values. The computation stays the same."""
    model = onnx.load(file)
    graph = model.graph
    for element in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del element.metadata_props[:]
        element.doc_string = ""
    onnx.save(model, file)
