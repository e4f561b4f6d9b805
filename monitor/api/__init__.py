"""Endpoints for machines: metrics, health, photos, and the data of the pages as JSON, described by /openapi.json."""
