"""Shows how well counts and inventory agree, from the records: as pages, JSON, and Prometheus metrics.

It writes audits, decisions on variances, imported files and the state of drift alarms. It never imports the worker or
the trainer.
"""
