"""Lets the worker's and the monitor's users of S3 read the bucket, by its policy. The policy's other statements stay.

Of versitygw in this project only: in another S3, rights are given by its operator (docs/compose.md).
"""

import json
import os
from typing import Any

import boto3
from botocore.exceptions import ClientError

from binwatch.settings import load_settings

OURS = "Binwatch"
"""How the ids of these statements begin."""


def statements(bucket: str, users: list[str]) -> list[dict[str, Any]]:
    """Only a nightly run on SageMaker would write, and that needs another S3."""
    may = {"Effect": "Allow", "Principal": {"AWS": users}}
    name = f"arn:aws:s3:::{bucket}"
    return [
        {"Sid": f"{OURS}List", **may, "Action": ["s3:ListBucket"], "Resource": name},
        {"Sid": f"{OURS}Read", **may, "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": f"{name}/*"},
    ]


def policy_of(s3: Any, bucket: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucketPolicy":
            raise
        return []
    return found


def main() -> None:
    settings = load_settings()
    if settings.s3_endpoint_url != "http://s3:7070":
        print("not the S3 of this project: its rights are left to its operator")
        return
    s3 = boto3.client("s3", endpoint_url=settings.s3_endpoint_url, region_name=settings.region)
    users = [os.environ["WORKER_ACCESS_KEY"], os.environ["MONITOR_ACCESS_KEY"]]
    others = [each for each in policy_of(s3, settings.bucket) if not each.get("Sid", "").startswith(OURS)]
    policy = {"Version": "2012-10-17", "Statement": [*others, *statements(settings.bucket, users)]}
    s3.put_bucket_policy(Bucket=settings.bucket, Policy=json.dumps(policy))
    print(f"{' and '.join(users)} may read bucket {settings.bucket!r}")


main()
