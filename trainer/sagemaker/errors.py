"""What can go wrong in AWS, beside requests that are refused (binwatch.sagemaker.requests)."""

from __future__ import annotations

from binwatch.errors import BinwatchError


class SagemakerError(BinwatchError):
    """A job or an endpoint failed in AWS. What was left running is named."""
