"""View models of the pages and the JSON API; each module has its models and the queries that fill them.

Most modules belong to one page each. The queries run in the caller's transaction (monitor.records.Records.read). Their
cost does not depend on the number of records: they read totals, or a few rows through an index.
"""
