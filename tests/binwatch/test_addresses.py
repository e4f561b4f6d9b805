"""URLs and regions in settings: an invalid value is a one-line error that names the setting and shows no password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from binwatch.aws import make_client
from binwatch.environment import PREFIX
from binwatch.errors import SettingsError
from binwatch.settings import load_settings

ROOT = Path(__file__).parents[2]
ENCODING_HINT = "percent encoding (%23 for #"
BROKERS = ("BROKER_URL", "EVENT_BROKER_URL")
ENDPOINTS = ("S3_ENDPOINT_URL", "SQS_ENDPOINT_URL", "SAGEMAKER_ENDPOINT_URL")

BAD_BROKERS = {
    "sqs": "no URL; write amqp://USER:PASSWORD@HOST:5672//, or sqs:// for SQS",
    "geheim": "no URL",
    "redis://:geheim@localhost": "redis:// is not supported; write amqp://",
    "kafka://h:1": "kafka:// is not supported",
    "AMQP://h": "AMQP:// is not supported",
    "amqp://u:ge#heim@h//": ENCODING_HINT,
    "amqp://u:geheim#@h//": ENCODING_HINT,
    "amqp://u:ge/heim@h//": ENCODING_HINT,
    "amqp://u:ge?heim@h//": ENCODING_HINT,
    "amqp://u:ge@heim@h//": ENCODING_HINT,
    "amqp://u:ge:heim@h//": ENCODING_HINT,
    "amqp://u:ge%heim@h//": ENCODING_HINT,
    "amqp://u:ge;heim@h//": ENCODING_HINT,
    "amqp://u:ge[heim@h//": ENCODING_HINT,
    "amqp://u:ge\u2100heim@h//": ENCODING_HINT,
    "amqp://u:ge heim@h//": "white space",
    "amqp://u:geheim@h//\n": "white space",
    "amqp://u:geheim": "the port is not a number",
    "amqp://u:geheim@h:99999//": "the port is not a number",
    "amqp://u:geheim@h:0//": "the port is not a number",
    "amqp://u:geheim@h_ost,//": "no host name",
    "amqp://u:geheim@h//?heartbeat=5": "has an option (after ?) that Binwatch does not know; it may have ssl_cert_reqs",
    "amqps://u:geheim@h//?ssl_cert_reqs=maybe": "ssl_cert_reqs may be CERT_NONE or",
}
BAD_SQS = {
    "sqs://KEY:ge/heim@": ENCODING_HINT,
    "sqs://KEY:ge+heim#@h": ENCODING_HINT,
    "sqs://KEY:geheim@h?region=x": "has an option (after ?) that Binwatch does not know; it may have none",
}
BAD_ENDPOINTS = {
    "127.0.0.1:9000": "no URL; write http://127.0.0.1:9000",
    "localhost": "no URL",
    "ftp://h": "ftp:// is not supported",
    "s3://bucket": "s3:// is not supported",
    "http://": "no host",
    "http:///path": "no host",
    "http://h:port": "the port is not a number",
    "http://h ost": "white space",
    "https://KEY:geheim@h": "must not contain credentials; set AWS_ACCESS_KEY_ID",
    "https://h/?geheim": "must not contain a query (?)",
}


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        *((setting, value, words) for setting in BROKERS for value, words in BAD_BROKERS.items()),
        *(("BROKER_URL", value, words) for value, words in BAD_SQS.items()),
        ("EVENT_BROKER_URL", "sqs://", "sqs:// is not supported; write amqp://"),
        *((setting, value, words) for setting in ENDPOINTS for value, words in BAD_ENDPOINTS.items()),
    ],
)
def test_invalid_addresses_are_one_line_errors_without_the_password(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, words: str
) -> None:
    monkeypatch.setenv(PREFIX + setting, value)
    if setting == "EVENT_BROKER_URL":
        words = words.replace(", or sqs:// for SQS", "")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    message = str(refused.value)
    assert message.startswith(f"{PREFIX}{setting}: ")
    assert words in message
    assert len(message.splitlines()) == 1
    assert not any(part in message for part in ("geheim", "heim@", ":ge", "ge@"))


@pytest.mark.parametrize(
    "value",
    [
        "amqp://",
        "amqp://guest:guest@127.0.0.1:5672//",
        "amqp://u:%23%2F%3F%40%25%3A%3B@rabbit-1.example.com/vhost",
        "amqps://u:p@[::1]:5671//?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required",
        "pyamqp://u@h/%2Fv",
        "amqp://u:p@a//;amqp://u:p@b//",
    ],
)
@pytest.mark.parametrize("setting", BROKERS)
def test_valid_broker_urls(monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + setting, value)
    assert load_settings().values()[PREFIX + setting].get_secret_value() == value


@pytest.mark.parametrize("value", ["sqs://", "sqs://KEY:se%2Fcret%2B@", "sqs://demo:demo@127.0.0.1:5000//"])
def test_valid_sqs_urls(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BINWATCH_BROKER_URL", value)
    assert load_settings().broker_url.get_secret_value() == value


@pytest.mark.parametrize(
    "value",
    ["http://127.0.0.1:9000", "https://s3.example.com/", "http://[::1]:9", "https://h/path", "http://minio_1:9"],
)
@pytest.mark.parametrize("setting", ENDPOINTS)
def test_valid_endpoint_urls(monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + setting, value)
    assert load_settings().values()[PREFIX + setting] == value


NON_AWS_REGIONS = ("nowhere", "mars-north-1", "us-east", "US-EAST-1", "eu-west-1a", "us-nowhere-1")
CUSTOM_REGIONS = ("eu_central_1", "eu central 1", "-", "a" * 64, "eu-central-1.")


def test_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Custom endpoints accept any region; AWS has its own, including some that boto3 does not know yet."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for region in ("us-east-1", "ap-southeast-9", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1"):
        monkeypatch.setenv("BINWATCH_REGION", region)
        assert load_settings().region == region
    for region in (*NON_AWS_REGIONS, *CUSTOM_REGIONS):
        monkeypatch.setenv("BINWATCH_REGION", region)
        with pytest.raises(
            SettingsError, match=r"^BINWATCH_REGION: .* is not (an AWS region|the name of a region); write"
        ):
            load_settings()
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("BINWATCH_SQS_ENDPOINT_URL", "http://127.0.0.1:9000")
    for region in NON_AWS_REGIONS:
        monkeypatch.setenv("BINWATCH_REGION", region)
        assert load_settings().region == region
    monkeypatch.setenv("BINWATCH_REGION", CUSTOM_REGIONS[0])
    with pytest.raises(SettingsError, match=r"^BINWATCH_REGION: 'eu_central_1' is not the name of a region"):
        load_settings()


@pytest.mark.parametrize("value", ["s3://binwatch", "bin watch", "-bins", "bins/2"])
def test_invalid_bucket_names(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BINWATCH_BUCKET", value)
    with pytest.raises(SettingsError, match=r"^BINWATCH_BUCKET: "):
        load_settings()


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "nobody"), ("AWS_ENDPOINT_URL", "127.0.0.1:9000")])
def test_invalid_aws_variables(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^boto3 cannot send requests to s3 .*{value}.*AWS_PROFILE"):
        make_client("s3", region_name="us-east-1")


PROGRAMS = (
    ("worker", "run"),
    ("worker", "beat"),
    ("worker", "setup"),
    ("monitor", "serve"),
    ("trainer", "models"),
    ("demo",),
)


@pytest.mark.parametrize("command", PROGRAMS, ids=" ".join)
def test_every_program_ends_with_the_error_line(command: tuple[str, ...]) -> None:
    environment = os.environ | {
        "BINWATCH_BROKER_URL": "amqp://binwatch:ge#heim@127.0.0.1//",
        "BINWATCH_S3_ENDPOINT_URL": "127.0.0.1:9000",
    }
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: BINWATCH_S3_ENDPOINT_URL: no URL; write http://127.0.0.1:9000")
    assert "; BINWATCH_BROKER_URL: the host cannot be told from the password; " in line
    assert "heim" not in done.stderr
