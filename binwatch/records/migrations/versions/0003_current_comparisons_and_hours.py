"""How bins compare now, p-values, contents of bins, sums by the hour, models and what they mistake for what"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BYTEWISE = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
AUDITED = sa.text("audit_id IS NOT NULL")
WRONG = sa.text("error <> 0")

# What is there already, as binwatch.records keeps it from now on. P-values stay unknown: there is no calibration yet.
CURRENT = """
    INSERT INTO current_comparisons (bucket, bin_id, comparison_id, count_id, expectation_id, model_version, key,
        photo_at, predicted, expected, error, chance, doubt, audit_id)
    SELECT b.bucket, b.bin_id, p.id, p.count_id, p.expectation_id, p.model_version, c.key, c.modified_at, p.predicted,
        p.expected, p.error, COALESCE({chance}, 1), 1 + COALESCE({chance}, 1),
        (SELECT max(a.id) FROM audits a WHERE a.bucket = b.bucket AND a.bin_id = b.bin_id AND a.count_id = b.count_id)
    FROM bins b
    JOIN counts c ON c.id = b.count_id AND c.reason IS NULL
    JOIN comparisons p ON p.count_id = b.count_id AND p.expectation_id = b.expectation_id
"""
RANKED = """
    INSERT INTO rank_totals (kind, bins, last_at)
    SELECT 'uncalibrated', count(*), CURRENT_TIMESTAMP FROM current_comparisons
"""
MODELS = """
    INSERT INTO models (model_version, first_at)
    SELECT model_version, min(recorded_at) FROM counts GROUP BY model_version
"""
CONFUSION = """
    INSERT INTO confusion_totals (subject, model_version, true_class, predicted, comparisons, last_at)
    SELECT 'inventory', model_version, {least}(expected, 6), predicted, count(*), max(compared_at)
    FROM comparisons GROUP BY 2, 3, 4
"""
AUDITED_CONFUSION = """
    INSERT INTO confusion_totals (subject, model_version, true_class, predicted, comparisons, last_at)
    SELECT 'audit', c.model_version, {least}(a.quantity, 6), c.predicted, count(*), max(a.audited_at)
    FROM audits a JOIN counts c ON c.id = a.count_id WHERE c.predicted IS NOT NULL GROUP BY 2, 3, 4
"""
COMPARISON_HOURS = """
    INSERT INTO comparison_hours (hour, model_version, outcome, comparisons, within_one, absolute_error, squared_error,
        last_at)
    SELECT {compared_hour}, model_version, outcome, count(*), sum(CASE WHEN abs(error) <= 1 THEN 1 ELSE 0 END),
        sum(abs(error)), sum(error * error), max(compared_at)
    FROM comparisons GROUP BY 1, 2, 3
"""
PHOTO_HOURS = """
    INSERT INTO photo_hours (hour, model_version, tenth, photos, confidence, last_at)
    SELECT hour, model_version, CASE WHEN top >= 1 THEN 9 ELSE {tenth} END, count(*), sum(top),
        max(recorded_at)
    FROM (SELECT {recorded_hour} AS hour, model_version, {top} AS top, recorded_at FROM counts
        WHERE reason IS NULL AND probabilities IS NOT NULL) AS counted
    WHERE top IS NOT NULL GROUP BY 1, 2, 3
"""
WORDS = {
    "postgresql": {
        "chance": "CAST(c.probabilities ->> least(p.expected, 6) AS double precision)",
        "top": "CAST(probabilities ->> CAST(predicted AS integer) AS double precision)",
        "tenth": "CAST(floor(top * 10) AS integer)",
        "least": "least",
        "compared_hour": "date_trunc('hour', compared_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
        "recorded_hour": "date_trunc('hour', recorded_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
    },
    "sqlite": {
        "chance": "json_extract(c.probabilities, '$[' || min(p.expected, 6) || ']')",
        "top": "json_extract(probabilities, '$[' || predicted || ']')",
        "tenth": "CAST(top * 10 AS integer)",
        "least": "min",
        "compared_hour": "strftime('%Y-%m-%d %H:00:00.000000', compared_at)",
        "recorded_hour": "strftime('%Y-%m-%d %H:00:00.000000', recorded_at)",
    },
}


def upgrade() -> None:
    # Adding columns without batch mode: SQLite would copy the whole table otherwise.
    op.add_column("expectations", sa.Column("contents", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("comparisons", sa.Column("chance", sa.Double(), nullable=True))
    op.add_column("comparisons", sa.Column("p_value", sa.Double(), nullable=True))
    _create_current_comparisons()
    _create_rank_totals()
    _create_models()
    _create_confusion_totals()
    _create_comparison_hours()
    _create_photo_hours()
    words = WORDS[op.get_bind().dialect.name]
    for statement in (CURRENT, RANKED, MODELS, CONFUSION, AUDITED_CONFUSION, COMPARISON_HOURS, PHOTO_HOURS):
        op.execute(statement.format(**words))
    _create_indexes()


def _create_current_comparisons() -> None:
    op.create_table(
        "current_comparisons",
        sa.Column("bin_id", BYTEWISE, nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("comparison_id", BIG_ID, nullable=False),
        sa.Column("count_id", BIG_ID, nullable=False),
        sa.Column("expectation_id", BIG_ID, nullable=False),
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("key", BYTEWISE, nullable=False),
        sa.Column("photo_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("predicted", sa.SmallInteger(), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=False),
        sa.Column("error", sa.Integer(), nullable=False),
        sa.Column("chance", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("doubt", sa.Double(), nullable=False),
        sa.Column("audit_id", BIG_ID, nullable=True),
        sa.ForeignKeyConstraint(["comparison_id"], ["comparisons.id"]),
        sa.ForeignKeyConstraint(["count_id"], ["counts.id"]),
        sa.ForeignKeyConstraint(["expectation_id"], ["expectations.id"]),
        sa.ForeignKeyConstraint(["audit_id"], ["audits.id"]),
        sa.PrimaryKeyConstraint("bin_id", "bucket"),
    )


def _create_rank_totals() -> None:
    op.create_table(
        "rank_totals",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("bins", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind"),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("calibration", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("calibrated_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("model_version"),
    )


def _create_confusion_totals() -> None:
    op.create_table(
        "confusion_totals",
        sa.Column("subject", sa.String(length=10), nullable=False),
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("true_class", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("predicted", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("comparisons", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", "model_version", "true_class", "predicted"),
    )


def _create_comparison_hours() -> None:
    op.create_table(
        "comparison_hours",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("comparisons", sa.BigInteger(), nullable=False),
        sa.Column("within_one", sa.BigInteger(), nullable=False),
        sa.Column("absolute_error", sa.BigInteger(), nullable=False),
        sa.Column("squared_error", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hour", "model_version", "outcome"),
    )


def _create_photo_hours() -> None:
    op.create_table(
        "photo_hours",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("tenth", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("photos", sa.BigInteger(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hour", "model_version", "tenth"),
    )


def _create_indexes() -> None:
    """After the rows: filling an index at once is quicker than row by row."""
    rank = ["doubt", "chance", "comparison_id"]
    op.create_index("ix_current_rank", "current_comparisons", rank)
    op.create_index(
        "ix_current_wrong",
        "current_comparisons",
        rank,
        postgresql_include=["audit_id"],
        postgresql_where=WRONG,
        sqlite_where=WRONG,
    )
    op.create_index("ix_current_model", "current_comparisons", ["model_version", *rank])
    op.create_index("ix_current_error", "current_comparisons", ["error", *rank])
    op.create_index("ix_current_key", "current_comparisons", ["key"])
    op.create_index("ix_current_photo_at", "current_comparisons", ["photo_at"])
    op.create_index(
        "ix_current_audit", "current_comparisons", ["audit_id"], postgresql_where=AUDITED, sqlite_where=AUDITED
    )
