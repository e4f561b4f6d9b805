"""Tests of the Lambda function that counts the photo of a link, with a real serving container."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from testing.brightness import write_brightness_bundle
from testing.services.s3 import S3
from testing.transform_driver import Container

FILE = Path(__file__).parents[2] / "deploy" / "aws" / "count_link.py"
PHOTO = Path(__file__).parents[2] / "samples" / "bin-images" / "00182.jpg"
ENDPOINT_NAME = "bins"


class Endpoints:
    """An HTTP server that forwards InvokeEndpoint requests to the container of an endpoint."""

    def __init__(self) -> None:
        self.port: int | None = None
        self.error: tuple[int, str, str] | None = None
        """Status, error code and message to answer requests with, instead of forwarding them."""
        endpoints = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, code, answer = endpoints.answer(self.path, dict(self.headers), body)
                self.send_response(status)
                if code:
                    self.send_header("x-amzn-errortype", code)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        if self.error:
            status, code, message = self.error
            return status, code, json.dumps({"Message": message}).encode()
        assert path == f"/endpoints/{ENDPOINT_NAME}/invocations"
        assert self.port
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/invocations", body, {"Content-Type": headers["Content-Type"]})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, "", content


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    endpoints = Endpoints()
    yield endpoints
    endpoints.server.shutdown()
    endpoints.server.server_close()


@pytest.fixture
def function(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the function, as Lambda loads it."""
    monkeypatch.setenv("ENDPOINT_NAME", ENDPOINT_NAME)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoints.url)
    spec = importlib.util.spec_from_file_location("count_link", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def post_to_url(function: ModuleType, body: str, *, encoded: bool = False) -> tuple[int, Any]:
    """Simulate a POST to the function's URL. Returns the status and the parsed body."""
    sent = base64.b64encode(body.encode()).decode() if encoded else body
    response = function.handler({"requestContext": {}, "body": sent, "isBase64Encoded": encoded}, None)
    return response["statusCode"], json.loads(response["body"])


def test_photo_of_link_is_counted(
    function: ModuleType, endpoints: Endpoints, s3: S3, tmp_path: Path
) -> None:  # fmt: skip
    s3.put("bin-images/00182.jpg", PHOTO.read_bytes())
    write_brightness_bundle(tmp_path / "model")
    container = Container(
        tmp_path,
        {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "BINWATCH_BUCKET": s3.bucket,
            "BINWATCH_S3_ENDPOINT_URL": s3.endpoint_url,
        },
    )
    try:
        endpoints.port = container.port
        link = {"photo": f"s3://{s3.bucket}/bin-images/00182.jpg"}
        answer = function.handler(link, None)
        assert answer["photo"] == link["photo"]
        assert answer["count"] == ["0", "1", "2", "3", "4", "5", "more than 5"][answer["predicted"]]
        assert post_to_url(function, json.dumps(link)) == (200, answer)
        assert post_to_url(function, json.dumps(link), encoded=True) == (200, answer)
        status, missing = post_to_url(function, json.dumps({"photo": f"s3://{s3.bucket}/none.jpg"}))
        assert (status, missing["reason"]) == (200, "missing")
    finally:
        container.process.terminate()
        container.process.wait(30)


@pytest.mark.parametrize(
    "body", ["", "no JSON", "[]", '{"photo": 3}', '{"photo": "http://x/y.jpg"}', '{"link": "s3://b/k"}']
)
def test_invalid_link_is_rejected(body: str, function: ModuleType) -> None:
    assert post_to_url(function, body) == (400, {"error": 'send {"photo": "s3://BUCKET/KEY"}'})


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ((400, "ValidationError", "Endpoint bins of account 1 not found."), 503,
         "there is no endpoint bins: python -m trainer sagemaker deploy"),
        ((400, "ThrottlingException", "Rate exceeded"), 429, "the endpoint has too much to do; try again in a minute"),
        ((424, "ModelError", "Received server error (500) from primary"), 502,
         "endpoint bins: Received server error (500) from primary (ModelError)"),
    ],
)  # fmt: skip
def test_endpoint_error_is_reported(
    error: tuple[int, str, str], status: int, message: str, function: ModuleType, endpoints: Endpoints
) -> None:
    endpoints.error = error
    assert post_to_url(function, '{"photo": "s3://b/k.jpg"}') == (status, {"error": message})


def test_direct_invocation_raises_endpoint_error(function: ModuleType, endpoints: Endpoints) -> None:
    endpoints.error = (424, "ModelError", "no answer")
    with pytest.raises(RuntimeError, match="endpoint bins: no answer"):
        function.handler({"photo": "s3://b/k.jpg"}, None)
