"""All settings, each with its name, type, default and description. They are read once and passed on as an object.

Each field is set by the environment variable BINWATCH_ plus its name in capitals. An unknown BINWATCH_ variable is an
error, since a misspelt limit that is silently ignored is worse than a service that does not start.
"""

from __future__ import annotations

import difflib
import os
import sysconfig
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator

from binwatch.addresses import RABBITMQ_SCHEMES, check_broker, check_endpoint, check_region
from binwatch.bin_naming import BinNaming, compile_bin_pattern, make_bin_naming
from binwatch.cores import usable_cores
from binwatch.counts import Suspicion
from binwatch.environment import PREFIX, EnvironmentSettings
from binwatch.errors import SettingsError
from binwatch.image import PILLOW_MAX_PIXELS, ImageLimits
from binwatch.records.variances import VarianceTolerance
from binwatch.sagemaker.settings import SagemakerSettings
from binwatch.slicing import Slicing, compile_slice_pattern, make_slicing

S = TypeVar("S", bound=EnvironmentSettings)


def _default_model() -> Path:
    """Return the folder of the starter model, in the repository or in the installation."""
    in_repository = Path(__file__).parent.parent / "samples" / "model"
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    installed = [Path(sysconfig.get_path("data", scheme)) / "share" / "binwatch" / "model" for scheme in schemes]
    return next((folder for folder in (in_repository, *installed) if folder.is_dir()), in_repository)


DEFAULT_MODEL = _default_model()


class EventSource(StrEnum):
    """Source of S3 event messages."""

    SQS = "sqs"
    RABBITMQ = "rabbitmq"
    NONE = "none"


class Provider(StrEnum):
    """Device for ONNX Runtime. `auto` uses CUDA if the installed runtime has it, and logs its choice."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class NightlyBackend(StrEnum):
    """Backend of the nightly run: the workers, or SageMaker batch transform jobs."""

    LOCAL = "local"
    SAGEMAKER = "sagemaker"


class AuditView(StrEnum):
    """Whether auditors see a bin's numbers before they answer."""

    BLIND = "blind"
    SIGHTED = "sighted"


class DriftReference(StrEnum):
    """Photos that recent photos are compared with for drift alarms."""

    TRAINING = "training"
    """The drift reference in the model's bundle."""
    SAME_HOURS = "same_hours"
    """The photos of the same hours of the week in the previous four weeks."""


class LogFormat(StrEnum):
    """Format of log lines."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Severity of log lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class PrecisionChoice(StrEnum):
    """Variant of the bundle to load. `auto`: fp16 on CUDA and int8 on a CPU, else fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Settings(EnvironmentSettings):
    """All settings of the worker and the monitor. AWS credentials come from AWS' standard chain."""

    # Objects
    bucket: str = Field(
        "binwatch",
        min_length=3,
        max_length=63,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="bucket with the photos and metadata",
        examples=["bins"],
    )
    s3_endpoint_url: str | None = Field(
        None, description="S3 endpoint; unset for AWS", examples=["https://s3.example.com"]
    )
    s3_timeout_s: float = Field(10.0, gt=0, description="seconds to wait for a connection and for each read from S3")
    region: str = Field("us-east-1", description="region of S3, SQS and SageMaker", examples=["eu-central-1"])
    models_prefix: str = Field(
        "models/", description="prefix of the models' keys; objects under it are neither photos nor metadata"
    )

    bin_pattern: str | None = Field(
        None, description="regular expression whose group `bin` finds a bin in a key; unset: the file's name is the bin"
    )
    bin_list: Path | None = Field(
        None,
        description="table (XLSX, ODS, CSV, …) with the columns `photo` (a key or a file's name) and `bin`; goes before"
        " the pattern",
    )
    slice_pattern: str | None = Field(
        None,
        description="regular expression with one group, which finds a photo's slice (camera, aisle, site) in its key;"
        " unset: no slices",
    )
    slice_depth: int | None = Field(
        None, ge=1, le=20, description="number of folders at the beginning of a key that are the photo's slice"
    )

    # Limits, enforced before decoding
    max_photo_bytes: int = Field(20 * 2**20, gt=0, description="largest photo that is accepted, in bytes")
    max_photo_pixels: int = Field(
        50_000_000, gt=0, le=PILLOW_MAX_PIXELS, description="largest number of pixels of a photo that is accepted"
    )
    max_photo_memory: int = Field(
        256 * 2**20,
        ge=2**20,
        description="most memory that decoding one photo may take, in bytes; other photos are refused",
    )
    decode_memory: int = Field(
        512 * 2**20,
        ge=2**20,
        description="most memory that all photos being decoded in a process may take, in bytes; others wait",
    )
    max_metadata_bytes: int = Field(2**20, gt=0, description="largest metadata file that is accepted, in bytes")

    # Records
    database_url: SecretStr = Field(
        SecretStr("sqlite:///binwatch.db"),
        description="SQLAlchemy URL of the records: SQLite or PostgreSQL",
        examples=["postgresql://USER:PASSWORD@db.example.com/binwatch"],
    )

    # Events and tasks
    event_source: EventSource = Field(EventSource.SQS, description="source of S3 event messages", examples=["rabbitmq"])
    sqs_endpoint_url: str | None = Field(None, description="SQS endpoint for events; unset for AWS")
    event_queue: str = Field("binwatch-events", description="queue that S3 sends its event messages to")
    event_dead_letter_queue: str = Field("binwatch-events-dead", description="dead-letter queue of the event queue")
    broker_url: SecretStr = Field(
        SecretStr("sqs://"),
        description="Celery's broker: sqs:// or amqp://…",
        examples=["amqp://USER:PASSWORD@mq.example.com:5672//"],
    )
    event_broker_url: SecretStr | None = Field(
        None,
        description="URL of the RabbitMQ with the event queue, for the event source rabbitmq; unset: Celery's broker",
    )
    task_queue: str = Field("binwatch-tasks", description="Celery's own queue; must differ from the event queue")
    group_photos: int = Field(32, ge=1, le=256, description="largest number of photos in one task")
    group_wait_ms: int = Field(200, ge=0, le=60_000, description="longest wait for a group to fill, in milliseconds")
    retry_wait_s: float = Field(
        2.0, gt=0, description="first backoff after an outage, in seconds; doubles up to one minute"
    )

    # Reconciling
    reconcile_minutes: float = Field(10.0, gt=0, description="minutes between two runs of reconcile")
    reconcile_grace_s: float = Field(
        120.0, ge=0, description="grace period in seconds: reconcile leaves younger objects to their event messages"
    )

    beat_file: Path = Field(Path("beat-schedule"), description="file in which beat stores the time of each last start")

    # Counting
    model_dir: Path = Field(DEFAULT_MODEL, description="folder with the model bundle, used until one is promoted")
    model_poll_s: float = Field(20.0, gt=0, description="seconds between two polls for a newly promoted model")
    model_settle_s: float = Field(
        30.0,
        ge=0,
        description="seconds from loading a promoted model to its first photo, so that its metrics are scraped at 0",
    )
    model_cache: Path = Field(Path("model-cache"), description="folder in which promoted models are cached")
    precision: PrecisionChoice = Field(PrecisionChoice.AUTO, description="variant of the bundle to load")
    provider: Provider = Field(Provider.AUTO, description="device on which ONNX Runtime runs")
    batch_size: int = Field(16, ge=1, le=512, description="largest number of photos in one inference call")
    inference_threads: int = Field(
        0, ge=0, description="threads of ONNX Runtime; 0: one per core that CPU mask and quota allow"
    )
    fetch_threads: int = Field(
        16,
        ge=1,
        le=256,
        description="photos fetched and decoded concurrently; of files on this machine, at most twice the usable cores",
    )
    worker_concurrency: int = Field(
        3, ge=1, le=64, description="tasks processed concurrently: one infers, the others fetch"
    )

    worker_host: str = Field("127.0.0.1", description="address of a worker's /metrics and /healthz")
    worker_port: int = Field(0, ge=0, le=65535, description="port of a worker's /metrics and /healthz; 0: any free one")
    log_format: LogFormat = Field(LogFormat.TEXT, description="log lines for people, or one JSON object a line")
    log_level: LogLevel = Field(
        LogLevel.INFO,
        description="the least severe log lines that are written; from `warning` on, commands print no progress and no"
        " remarks",
    )

    # Serving on SageMaker
    serve_host: str | None = Field(
        None,
        description="address that `worker serve` listens on; unset: `127.0.0.1`, or all addresses on SageMaker",
    )
    serve_port: int = Field(8080, ge=0, le=65535, description="port that `worker serve` listens on; 0: any free one")
    serve_batch_wait_ms: float = Field(
        5.0, ge=0, le=1000, description="longest wait of a batch for photos that are being decoded, in milliseconds"
    )
    serve_queue: int = Field(
        128, ge=1, le=10_000, description="largest number of requests in flight; more are refused with 503"
    )
    serve_memory_bytes: int = Field(
        256 * 2**20,
        gt=0,
        description="most memory that request bodies may take, in bytes; more are refused with 503. Linked photos may"
        " take as much again",
    )
    serve_prefixes: str | None = Field(
        None,
        description="key prefixes that links may point to, separated by commas; unset: the bucket without models and"
        " nightly runs",
    )
    # Nightly run
    nightly_at: str | None = Field(
        None,
        pattern=r"^\S+ \S+ \S+ \S+ \S+$",
        description="crontab in UTC for the nightly run, such as `0 2 * * *`; unset: never",
    )
    nightly_backend: NightlyBackend = Field(
        NightlyBackend.LOCAL, description="backend of the nightly run: the running workers, or SageMaker"
    )
    nightly_prefix: str = Field("nightly/", min_length=1, description="prefix of the nightly runs' keys")
    nightly_poll_s: float = Field(60.0, ge=1, description="seconds between two polls of a nightly run's transform jobs")
    sagemaker: SagemakerSettings = Field(default_factory=SagemakerSettings)

    # Monitor
    monitor_host: str = Field("127.0.0.1", description="address that the monitor listens on")
    monitor_port: int = Field(8000, ge=0, le=65535, description="port that the monitor listens on; 0: any free one")
    photo_dir: Path | None = Field(
        None, description="folder that the monitor reads photos from, if `binwatch check` counted them; unset: S3"
    )
    drift_interval_s: float = Field(60.0, ge=1, le=600, description="seconds between two drift checks")
    drift_reference: DriftReference = Field(
        DriftReference.TRAINING,
        description="what drift alarms compare photos with: the model's own reference, or the same hours of the week"
        " in the four weeks before",
    )
    flag_level: float = Field(
        0.05,
        gt=0,
        le=0.5,
        description="flag level: largest share of correctly recorded bins that is flagged, on average",
    )
    flag_direction: Suspicion = Field(
        Suspicion.EITHER, description="bins to rank and flag: items missing, surplus, or either"
    )
    monitor_hosts: str = Field(
        "monitor",
        description="host names that the monitor answers to besides localhost and IP addresses, separated by commas",
    )
    monitor_token: SecretStr | None = Field(
        None, min_length=16, description="token for entering audits; unset: nobody can enter any"
    )
    audit_view: AuditView = Field(
        AuditView.BLIND,
        description="what auditors see before they answer: no number of the bin, or all; audits of the latter are"
        " marked, and measure no accuracy",
    )
    variance_items: int = Field(
        0, ge=0, description="tolerance in items: larger differences between an audit and the inventory open a variance"
    )
    variance_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="tolerance as a share of the expected quantity; a variance is beyond both tolerances",
    )
    monitor_approver_token: SecretStr | None = Field(
        None, min_length=16, description="token for approving and rejecting variances, and for entering audits"
    )
    monitor_approver_role: str = Field(
        "approver", min_length=1, description="role or group of `BINWATCH_MONITOR_ROLE_HEADER` that may approve"
    )
    monitor_role_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="header with the user's roles or groups, separated by commas, from a reverse proxy; unset: no"
        " header is trusted",
    )
    audit_repeats: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="share of *Next random bin* that tests its auditor: audited blind by somebody else, or of a known"
        " quantity; 0: none",
    )
    monitor_user_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="header with the user name from a reverse proxy; unset: no header is trusted",
    )
    monitor_proxies: str = Field(
        "127.0.0.1,::1",
        description="addresses or networks of reverse proxies whose user header and X-Forwarded-Prefix are trusted,"
        " separated by commas",
    )
    monitor_root_path: str | None = Field(
        None,
        description="path under which a reverse proxy publishes the monitor, e.g. `/binwatch`; unset: the path in"
        " X-Forwarded-Prefix, or none",
    )

    @field_validator("s3_endpoint_url", "sqs_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            check_endpoint(value)
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: SecretStr) -> SecretStr:
        check_broker(value.get_secret_value())
        return value

    @field_validator("event_broker_url")
    @classmethod
    def _event_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_broker(value.get_secret_value(), RABBITMQ_SCHEMES)
        return value

    @field_validator("bin_pattern")
    @classmethod
    def _bin_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            compile_bin_pattern(value)
        return value

    @field_validator("slice_pattern")
    @classmethod
    def _slice_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            compile_slice_pattern(value)
        return value

    @property
    def slicing(self) -> Slicing | None:
        """Key → slice; None without slices. Raises SettingsError."""
        return make_slicing(self.slice_pattern, self.slice_depth)

    @property
    def bin_naming(self) -> BinNaming:
        """Key → bin. Reads the bin list. Raises SettingsError."""
        return make_bin_naming(self.bin_pattern, self.bin_list)

    @property
    def variance_tolerance(self) -> VarianceTolerance:
        """The tolerance beyond which a difference opens a variance."""
        return VarianceTolerance(self.variance_items, self.variance_share)

    @property
    def file_threads(self) -> int:
        """Number of local photo files that are read and decoded concurrently.

        Local files need no network. With more than two threads per core, decoding and inference wait for the
        interpreter lock: a small model counted a fifth fewer photos on 16 threads than on 4 (two cores).
        """
        return min(self.fetch_threads, 2 * usable_cores())

    @property
    def limits(self) -> ImageLimits:
        """Limits for a photo."""
        return ImageLimits(
            max_bytes=self.max_photo_bytes,
            max_pixels=self.max_photo_pixels,
            max_memory=self.max_photo_memory,
            decode_memory=self.decode_memory,
        )


def load_settings() -> Settings:
    """Read the environment. Raises SettingsError, which names all unknown and invalid variables."""
    _reject_unknown_variables()
    _share_ca_certificates()
    errors: list[str] = []
    sagemaker = _read_settings(SagemakerSettings, errors) or SagemakerSettings.model_construct()
    settings = _read_settings(Settings, errors, sagemaker=sagemaker)
    if errors or settings is None:
        raise SettingsError("; ".join(errors))
    make_slicing(settings.slice_pattern, settings.slice_depth)  # raises if both are set
    require_region(settings, on_aws=settings.s3_endpoint_url is None)
    if settings.task_queue == settings.event_queue:
        raise SettingsError(
            f"{PREFIX}TASK_QUEUE and {PREFIX}EVENT_QUEUE are both {settings.task_queue!r}: Celery would destroy raw S3"
            " events in a queue that it consumes; name two queues"
        )
    return settings


def require_region(settings: Settings, *, on_aws: bool) -> None:
    """Raise SettingsError unless the region is valid; with `on_aws`, it must be an AWS region."""
    # AWS' own variables may point to other servers, whose regions have other names.
    has_endpoint = any(name.startswith("AWS_ENDPOINT_URL") and value for name, value in os.environ.items())
    try:
        check_region(settings.region, on_aws=on_aws and not has_endpoint)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}REGION: {error}") from error


def process_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of this process, with `settings` as its BINWATCH_ variables and without AWS variables.

    This is for child processes that must use exactly these settings and never the user's AWS account.
    """
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith((PREFIX, "AWS_"))}
    return kept | {variable: setting_text(value) for variable, value in settings.values().items() if value is not None}


def is_quiet() -> bool:
    """Return whether commands print only results, warnings and errors, by BINWATCH_LOG_LEVEL.

    The settings need not be valid: an invalid level is not quiet.
    """
    return os.environ.get(f"{PREFIX}LOG_LEVEL") in {LogLevel.WARNING, LogLevel.ERROR}


def advice(*names: str) -> str:
    """Return advice about settings that may have caused an error: check those that are set, and set the others.

    `names`: variables in lower case, without the prefix. The settings need not be valid.
    """
    set_variables = {name.upper() for name, value in os.environ.items() if value}
    variables = [PREFIX + name.upper() for name in names]
    to_check = ", ".join(variable for variable in variables if variable in set_variables)
    lines = [f"check {to_check}"] if to_check else []
    for variable in variables:
        if variable not in set_variables:
            field = Settings.variables()[variable]
            default = (
                f" ({field.description})" if field.default is None else f", so it is {setting_text(field.default)}"
            )
            example = f": for example {variable}={field.examples[0]}" if field.examples else ""
            lines.append(f"{variable} is not set{default}{example}")
    return "; ".join(lines)


def adopt_environment(environment: dict[str, str]) -> None:
    """Replace the environment of this process, which its child processes inherit."""
    os.environ.clear()
    os.environ.update(environment)


def _share_ca_certificates() -> None:
    """Make boto3 trust the certificates in SSL_CERT_FILE, as other programs do. boto3 itself reads two other variables.

    A missing file is an error here, since boto3 would report it only at the first request and without its name.
    """
    if not os.environ.get("AWS_CA_BUNDLE"):
        os.environ.pop("AWS_CA_BUNDLE", None)  # boto3 rejects an empty one
        if os.environ.get("SSL_CERT_FILE") and not os.environ.get("REQUESTS_CA_BUNDLE"):
            os.environ["AWS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"]
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name) and not Path(os.environ[name]).is_file():
            raise SettingsError(f"{name}: there is no file {os.environ[name]!r}; name a file of certificates (PEM)")


def setting_text(value: object) -> str:
    """Return a setting's value as text for its variable. Secrets are not hidden; None becomes an empty text."""
    if value is None:
        return ""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _read_settings(kind: type[S], errors: list[str], **nested: Any) -> S | None:
    """Read the settings of one class. Returns None and appends to `errors` if variables are invalid."""
    try:
        return kind(**nested)
    except ValidationError as error:  # its own message contains values, such as passwords
        for details in error.errors(include_url=False):
            name = "".join(f"{kind.variable(str(field))}: " for field in details["loc"][:1])
            errors.append(name + details["msg"].removeprefix("Value error, "))
        return None


def _reject_unknown_variables() -> None:
    known = set(Settings.variables())
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    # Compared without the common prefix, which would make all names similar.
    names = [setting.removeprefix(PREFIX) for setting in known]
    lines = []
    for name in unknown:
        close = difflib.get_close_matches(name.upper().removeprefix(PREFIX), names, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else "see docs/settings.md"
        lines.append(f"{name} is not a setting; {hint}")
    if lines:
        raise SettingsError("; ".join(lines))
