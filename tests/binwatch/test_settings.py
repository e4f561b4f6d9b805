"""Settings: environment variables, validation and documentation in docs/settings.md."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from binwatch.environment import PREFIX
from binwatch.errors import SettingsError
from binwatch.settings import EventSource, Provider, Settings, advice, load_settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "settings.md"


def test_defaults_are_valid() -> None:
    assert load_settings() == Settings()


def test_every_setting_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "BUCKET": "warehouse",
        "S3_ENDPOINT_URL": "http://127.0.0.1:9000",
        "S3_TIMEOUT_S": "2.5",
        "MAX_PHOTO_BYTES": "1000",
        "MAX_PHOTO_PIXELS": "2000",
        "EVENT_SOURCE": "none",
        "PROVIDER": "cpu",
        "MODEL_DIR": "/srv/model",
        "MONITOR_PORT": "0",
        "DATABASE_URL": "postgresql://u:geheim@db/records",
    }.items():
        monkeypatch.setenv(PREFIX + name, value)
    settings = load_settings()
    assert settings.bucket == "warehouse"
    assert settings.s3_timeout_s == 2.5
    assert (settings.limits.max_bytes, settings.limits.max_pixels) == (1000, 2000)
    assert (settings.event_source, settings.provider) == (EventSource.NONE, Provider.CPU)
    assert settings.model_dir == Path("/srv/model")
    assert settings.database_url.get_secret_value() == "postgresql://u:geheim@db/records"


def test_secrets_are_not_shown() -> None:
    settings = Settings(
        database_url=SecretStr("postgresql://u:geheim@db/x"), broker_url=SecretStr("amqp://u:geheim@mq")
    )
    assert "geheim" not in repr(settings)
    assert "geheim" not in str(settings)


def test_empty_variables_mean_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and Makefiles pass unset variables as empty ones."""
    for variable in Settings.variables():
        monkeypatch.setenv(variable, "")
    assert load_settings() == Settings()


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().bucket = "other"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BINWATCH_BUKET", "BINWATCH_BUKET is not a setting; did you mean BINWATCH_BUCKET?"),
        ("BINWATCH_SAGEMAKER_ROLLE", "did you mean BINWATCH_SAGEMAKER_ROLE?"),
        ("BINWATCH_SAGEMAKER", "BINWATCH_SAGEMAKER is not a setting"),
        ("BINWATCH_MAX_PHOTO_BYTE", "did you mean BINWATCH_MAX_PHOTO_BYTES?"),
        ("binwatch_buckets", "binwatch_buckets is not a setting; did you mean BINWATCH_BUCKET?"),
        ("BINWATCH_ZZZZ", "BINWATCH_ZZZZ is not a setting; see docs/settings.md"),
        ("BINWATCH_", "BINWATCH_ is not a setting"),
    ],
)
def test_unknown_variables(monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.setenv(name, "")  # even if it is empty
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert words in str(refused.value)


def test_all_unknown_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_BUKET", "x")
    monkeypatch.setenv("BINWATCH_REGIO", "x")
    with pytest.raises(SettingsError, match=r"BINWATCH_BUKET is .*; BINWATCH_REGIO is .*"):
        load_settings()


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "not ours")
    monkeypatch.setenv("MY_BINWATCH_BUCKET", "not ours")
    assert load_settings().bucket == "binwatch"


def test_lower_case_names_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("binwatch_bucket", "lower")
    assert load_settings().bucket == "lower"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUCKET", "ab"),
        ("BUCKET", "b" * 64),
        ("S3_TIMEOUT_S", "0"),
        ("S3_TIMEOUT_S", "nan"),
        ("S3_TIMEOUT_S", "inf"),
        ("S3_TIMEOUT_S", "soon"),
        ("RETRY_WAIT_S", "inf"),
        ("MAX_PHOTO_BYTES", "0"),
        ("MAX_PHOTO_BYTES", "20MB"),
        ("MAX_PHOTO_PIXELS", "89478486"),
        ("MAX_METADATA_BYTES", "-1"),
        ("EVENT_SOURCE", "kafka"),
        ("GROUP_PHOTOS", "257"),
        ("GROUP_PHOTOS", "1.5"),
        ("GROUP_WAIT_MS", "-1"),
        ("PRECISION", "int4"),
        ("PROVIDER", "tpu"),
        ("WORKER_CONCURRENCY", "65"),
        ("MONITOR_PORT", "65536"),
        ("SAGEMAKER_JOB_PHOTOS", "0"),
        ("SAGEMAKER_INSTANCE_COUNT", "1_0"),
    ],
)
def test_invalid_values_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value).startswith(f"{PREFIX}{name}: ")


def test_all_invalid_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_BATCH_SIZE", "none")
    monkeypatch.setenv("BINWATCH_MONITOR_PORT", "-1")
    monkeypatch.setenv("BINWATCH_SAGEMAKER_JOB_HOURS", "soon")
    with pytest.raises(SettingsError, match=r"BINWATCH_BATCH_SIZE: .*; BINWATCH_MONITOR_PORT: ") as refused:
        load_settings()
    assert "BINWATCH_SAGEMAKER_JOB_HOURS: " in str(refused.value)


def test_celery_must_not_consume_the_event_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_TASK_QUEUE", "binwatch-events")
    with pytest.raises(SettingsError, match=r"BINWATCH_TASK_QUEUE and BINWATCH_EVENT_QUEUE are both 'binwatch-events'"):
        load_settings()


def _kind(field: FieldInfo) -> str:
    """Return the documented type and range of a field."""
    types = [part for part in get_args(field.annotation) or (field.annotation,) if part is not type(None)]
    if issubclass(types[0], StrEnum):
        return " or ".join(f"`{choice}`" for choice in types[0])
    words = {int: "whole number", float: "number", Path: "path", SecretStr: "text, secret", str: "text"}[types[0]]
    for limit in field.metadata:
        match limit:
            case annotated_types.Ge(ge=value):
                words += f", at least {value:,}"
            case annotated_types.Gt(gt=value):
                words += f", above {value:,}"
            case annotated_types.Le(le=value):
                words += f", at most {value:,}"
            case annotated_types.MinLen(min_length=value):
                words += f", at least {value} characters"
            case annotated_types.MaxLen(max_length=value):
                words += f", at most {value}"
    return words


def _default(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    return f"`{value}`"


def _row(variable: str, field: FieldInfo) -> str:
    return f"| `{variable}` | {_kind(field)} | {_default(field.default)} | {field.description} |"


def test_the_docs_list_exactly_the_settings() -> None:
    documented = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{PREFIX}")]
    expected = [_row(*each) for each in Settings.variables().items()]
    missing = "\n".join(row for row in expected if row not in documented)
    assert not missing, f"copy these rows into docs/settings.md:\n{missing}"
    assert sorted(documented) == sorted(expected), "docs/settings.md has duplicate rows or rows that are not settings"


def test_errors_mention_that_a_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users who never set a variable must not search for a mistake in its value."""
    assert advice("database_url") == (
        "BINWATCH_DATABASE_URL is not set, so it is sqlite:///binwatch.db: for example"
        " BINWATCH_DATABASE_URL=postgresql://USER:PASSWORD@db.example.com/binwatch"
    )
    assert advice("sqs_endpoint_url") == "BINWATCH_SQS_ENDPOINT_URL is not set (SQS endpoint for events; unset for AWS)"
    monkeypatch.setenv("BINWATCH_DATABASE_URL", "postgresql://u:geheim@db/records")
    monkeypatch.setenv("BINWATCH_REGION", "")
    monkeypatch.setenv("binwatch_bucket", "bins")
    assert advice("database_url", "bucket") == "check BINWATCH_DATABASE_URL, BINWATCH_BUCKET"
    assert advice("region", "bucket") == (
        "check BINWATCH_BUCKET; BINWATCH_REGION is not set, so it is us-east-1: for example"
        " BINWATCH_REGION=eu-central-1"
    )


def test_examples_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        if field.examples:
            monkeypatch.setenv(PREFIX + name.upper(), field.examples[0])
    monkeypatch.setenv("BINWATCH_REGION", "eu-central-1")
    load_settings()
