"""Validates URLs and regions in settings before they are used. Messages never contain a part of a password.

Without this check, an invalid URL would do more harm: a driver's traceback may print the password, and a client may
retry for ever.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit

ESCAPE_ADVICE = (
    "write special characters of the user and the password in percent encoding (%23 for #, %25 for %, %2F for /,"
    " %3A for :, %3B for ;, %3F for ?, %40 for @)"
)
RABBITMQ_SCHEMES = ("amqp", "amqps", "pyamqp")
SQS_SCHEME = "sqs"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}", re.IGNORECASE)
_HOST_NAME = re.compile(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", re.IGNORECASE)
_AWS_REGION = re.compile(r"(af|ap|ca|cn|eu|il|me|mx|sa|us|us-gov)-(central|east|west|(north|south)(east|west)?)-[1-9]")
"""Names of AWS regions, including regions newer than boto3."""
_BAD_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_TLS_OPTIONS = {
    "ssl_cert_reqs": {"required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE"},
    "ssl_check_hostname": {"true", "false"},
    "ssl_ca_certs": None,
    "ssl_certfile": None,
    "ssl_keyfile": None,
}
"""Allowed option of a RabbitMQ URL → its allowed values; None: any value."""


def check_endpoint(url: str) -> None:
    """Raise ValueError unless `url` can be an endpoint of S3, SQS or SageMaker."""
    parts = split_url(url, ("http", "https"), "http://127.0.0.1:9000 or https://s3.example.com")
    if not parts.hostname:
        raise ValueError("has no host; write https://HOST:PORT")
    if parts.username is not None:
        raise ValueError("must not contain credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.query:
        raise ValueError("must not contain a query (?); write https://HOST:PORT")


def check_broker(url: str, schemes: Collection[str] = (SQS_SCHEME, *RABBITMQ_SCHEMES)) -> None:
    """Raise ValueError unless Celery can use the broker URL: SQS, or one or more RabbitMQ URLs separated by `;`."""
    example = "amqp://USER:PASSWORD@HOST:5672//" + (", or sqs:// for SQS" if SQS_SCHEME in schemes else "")
    brokers = url.split(";")
    if not all("://" in broker for broker in brokers[1:]):
        raise ValueError(f"the part after a ; is not a URL; {ESCAPE_ADVICE}")
    for broker in brokers:
        parts = split_url(broker, schemes, example)
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if parts.scheme == SQS_SCHEME or name not in _TLS_OPTIONS:
                options = "none" if parts.scheme == SQS_SCHEME else ", ".join(_TLS_OPTIONS)
                raise ValueError(f"has an option (after ?) that Binwatch does not know; it may have {options}")
            choices = _TLS_OPTIONS[name]
            if choices is not None and value not in choices:
                raise ValueError(f"{name} may be {' or '.join(sorted(choices))}")


def check_region(name: str, *, on_aws: bool) -> None:
    """Raise ValueError unless `name` is a valid region name; with `on_aws`, it must be an AWS region."""
    advice = "write one such as eu-central-1"
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", name):
        raise ValueError(f"{name!r} is not the name of a region; {advice}")
    if on_aws and not _is_aws_region(name):
        raise ValueError(f"{name!r} is not an AWS region; {advice}, or set the endpoint of your own server")


def split_url(url: str, schemes: Collection[str], example: str) -> SplitResult:
    """Split a URL into its parts. Raises ValueError for an invalid URL.

    That includes a URL whose host is ambiguous because of unescaped characters in the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"no URL; write {example}")
    if scheme not in schemes:
        problem = f"{scheme}:// is not supported" if _SCHEME.fullmatch(scheme) else "no URL"
        raise ValueError(f"{problem}; write {example}")
    if any(character.isspace() or not character.isprintable() for character in rest):
        raise ValueError(f"contains white space; {ESCAPE_ADVICE}")
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may contain the password
        raise ValueError(f"no URL; {ESCAPE_ADVICE}") from None
    user, _, host = parts.netloc.rpartition("@")
    if parts.fragment or url.endswith("#") or "@" in user or ("@" in rest and "@" not in parts.netloc):
        raise ValueError(f"the host cannot be told from the password; {ESCAPE_ADVICE}")
    if _BAD_PERCENT.search(user) or user.count(":") > 1:
        raise ValueError(f"the user or the password is not in percent encoding; {ESCAPE_ADVICE}")
    _check_host(host, parts, example)
    return parts


def _check_host(host: str, parts: SplitResult, example: str) -> None:
    """Raise ValueError for an invalid host or port.

    The message contains neither, since they may be part of a password that is not followed by `@`.
    """
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or host.endswith(":"):
        raise ValueError(f"the port is not a number from 1 to 65535; write {example}")
    if parts.hostname is not None and not _HOST_NAME.fullmatch(parts.hostname):
        raise ValueError(f"no host name; write {example}")


def _is_aws_region(name: str) -> bool:
    if _AWS_REGION.fullmatch(name):
        return True
    from botocore.session import get_session  # imported here, since it is slow

    partitions = get_session().get_component("data_loader").load_data("partitions")["partitions"]
    return any(name in partition["regions"] for partition in partitions)
