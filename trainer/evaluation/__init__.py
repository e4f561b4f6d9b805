"""Evaluation of a model: metrics with confidence intervals, comparison, report."""
