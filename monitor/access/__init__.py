"""Who may ask, and who may write: names that the monitor answers to, limits on bodies, tokens, sessions and forms.

Reading is open to everybody who can reach the address, which is the loopback one unless the settings say otherwise. Writing
needs the token of the settings, a session that was opened with it, or a user whom a trusted reverse proxy names.
"""
