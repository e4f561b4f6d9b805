"""The HTTP server of the worker and the monitor, with limits on connections, requests and time.

No other module of the package imports uvicorn.
"""
