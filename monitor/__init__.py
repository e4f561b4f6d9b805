"""Reads the records and shows how well counts and inventory agree: metrics for Prometheus, a page for people, JSON.

It writes audits, decisions on variances, imported files and the state of drift alarms. Nothing in here imports the
worker or the trainer.
"""
