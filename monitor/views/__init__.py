"""What pages and the JSON API show: typed figures, each module with its models and the query that fills them.

`overview`, `discrepancies`, `bins`, `models` and `drift` are one page each. The queries run in the caller's transaction
(monitor.records.Records.read) and cost the same with a thousand records or a million: they read sums, or a few rows by
an index.
"""
