"""Errors of jobs and endpoints in AWS. For refused requests see binwatch.sagemaker.requests."""

from __future__ import annotations

from binwatch.errors import BinwatchError


class SagemakerError(BinwatchError):
    """A job or an endpoint failed in AWS. The message names what is still running."""
