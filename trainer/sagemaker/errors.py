"""Errors of jobs and endpoints in AWS. Errors of single requests are in binwatch.sagemaker.requests."""

from __future__ import annotations

from binwatch.errors import BinwatchError


class SagemakerError(BinwatchError):
    """A job or an endpoint failed, or its result cannot be used. The message says if something is still running."""
