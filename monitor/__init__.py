"""Reads the records and shows how well counts and inventory agree: metrics for Prometheus, a page for people, JSON.

Serving only reads; `audit` and `expect` write what people and files say. Nothing in here imports the worker or
the trainer.
"""
