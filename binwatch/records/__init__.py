"""The records: counts, expected quantities, comparisons and audits. SQLAlchemy on SQLite or PostgreSQL."""
