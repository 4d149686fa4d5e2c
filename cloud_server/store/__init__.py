"""The cloud's durable state: SQLite by default, PostgreSQL by URL; one repository over both."""
