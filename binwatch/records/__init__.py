"""The records: what was counted, what was expected, how they compare. SQLAlchemy on SQLite or PostgreSQL."""
