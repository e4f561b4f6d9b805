"""The HTTP server of worker and monitor, with limits on connections, requests and time. Nothing else needs uvicorn."""
