"""Access control: allowed host names, limits on requests, tokens, sessions, forms and blind audits.

Everybody who can reach the monitor's address may read; by default that is the loopback address. Writing requires the
configured token, a session opened with it, or a user named by a trusted reverse proxy.
"""
