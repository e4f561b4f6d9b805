"""Evaluation of a model: figures with intervals, comparison, report."""
