"""Asks a service of this container how it is: exit status 0 if it can do its work; else what it answers, and 1.

    python -IS healthcheck.py PORT

By a bare socket, since this is started anew every few seconds and an HTTP client takes longer to import than to ask.
"""

import socket
import sys

try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=8) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
except OSError as error:
    sys.exit(f"no answer on port {sys.argv[1]}: {error}")
head, _, body = answer.partition("\r\n\r\n")
print(body[:2000])
sys.exit(0 if head.split(" ", 2)[1:2] == ["200"] else 1)
