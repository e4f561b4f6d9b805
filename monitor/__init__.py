"""Reads the records and shows how well counts and inventory agree: metrics for Prometheus, a page for people, JSON.

It only reads. Nothing in here imports the worker or the trainer.
"""
