"""For machines: metrics, health, the photos, and everything that pages show as JSON (/openapi.json describes it)."""
