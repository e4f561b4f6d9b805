"""AWS Lambda: takes a link to a photo, has the endpoint count it, and returns the answer.

Invoked directly with {"photo": "s3://BUCKET/KEY"}, or through its URL by a POST of the same JSON.
"""

import base64
import json
import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["ENDPOINT_NAME"]
# One try in the time that Lambda grants, rather than several that are all cut off.
runtime = boto3.client("sagemaker-runtime", config=Config(read_timeout=50, retries={"total_max_attempts": 2}))


def handler(event: dict[str, Any], context: object) -> Any:
    by_url = "requestContext" in event
    status, answer = count(event_of_url(event) if by_url else event)
    if by_url:
        return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(answer)}
    if status >= 500:
        raise RuntimeError(answer["error"])  # who invokes it directly, a queue say, tries again
    return answer


def event_of_url(event: dict[str, Any]) -> Any:
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body)
    try:
        return json.loads(body)
    except ValueError:
        return None


def count(asked: Any) -> tuple[int, Any]:
    link = asked.get("photo") if isinstance(asked, dict) else None
    if not isinstance(link, str) or not link.startswith("s3://"):
        return 400, {"error": 'send {"photo": "s3://BUCKET/KEY"}'}
    try:
        found = runtime.invoke_endpoint(
            EndpointName=ENDPOINT,
            ContentType="application/json",
            Accept="application/json",
            Body=json.dumps({"photo": link}),
        )
    except ClientError as error:
        code, says = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if code == "ThrottlingException":
            return 429, {"error": "the endpoint has too much to do; try again in a minute"}
        if code == "ValidationError" and "not found" in says:
            return 503, {"error": f"there is no endpoint {ENDPOINT}: python -m trainer sagemaker deploy"}
        return 502, {"error": f"endpoint {ENDPOINT}: {says} ({code})"}
    return 200, json.loads(found["Body"].read())
