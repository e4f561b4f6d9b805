"""moto's S3 and SQS, accessed over HTTP as the real services are."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class S3:
    """A bucket on a running server. `client` is a boto3 client for test data."""

    endpoint_url: str
    bucket: str
    client: Any

    def put(self, key: str, data: bytes) -> str:
        """Upload an object, and return its ETag."""
        etag: str = self.client.put_object(Bucket=self.bucket, Key=key, Body=data)["ETag"]
        return etag.strip('"')


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Endpoint of a moto server on a free port, for S3 and SQS."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # logging every request slows the tests
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def _moto_client(moto_url: str) -> Iterator[Any]:
    """A client shared by all tests, because creating one takes longer than most tests."""
    options = {"region_name": "us-east-1", "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=moto_url, config=Config(s3={"addressing_style": "path"}), **options)
    yield client
    client.close()


@pytest.fixture
def s3(moto_url: str, _moto_client: Any) -> S3:
    """A new, empty bucket for one test."""
    bucket = f"binwatch-{uuid.uuid4().hex[:12]}"
    _moto_client.create_bucket(Bucket=bucket)
    return S3(moto_url, bucket, _moto_client)
