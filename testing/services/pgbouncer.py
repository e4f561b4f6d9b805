"""A real pgbouncer in transaction mode in front of the tests' PostgreSQL, from Debian's package."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from binwatch.records.engine import connect
from testing.services.postgres import Postgres, require_service, unprivileged_prefix
from testing.waiting import wait_until_ready

PROGRAM = Path("/usr/sbin/pgbouncer")
PORT = 6432  # only part of the socket's name: no TCP port is used
START_TIMEOUT_S = 30
CONFIGURATION = """
[databases]
* = host={server}
[pgbouncer]
pool_mode = transaction
default_pool_size = 2
unix_socket_dir = {folder}
listen_addr =
listen_port = {port}
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
"""


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """A function that converts a database URL to one through pgbouncer, which has two server connections."""
    if not PROGRAM.exists():
        require_service("pgbouncer", "on Debian: apt-get install pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="binwatch-pb-"))
    prefix = unprivileged_prefix(folder)
    (folder / "users").write_text('"binwatch" ""\n')
    (folder / "ini").write_text(CONFIGURATION.format(server=postgres.folder, folder=folder, port=PORT))

    def through(url: str) -> str:
        return url.partition("?")[0] + f"?host={folder}&port={PORT}"

    with (folder / "output").open("wb") as output:
        process = subprocess.Popen([*prefix, str(PROGRAM), str(folder / "ini")], stdout=output, stderr=output)
    try:
        engine = connect(through(postgres.url("postgres")))
        log = (folder / "output").read_text
        wait_until_ready(process, lambda: engine.connect().close(), OperationalError, log, START_TIMEOUT_S)
        engine.dispose()
        yield through
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)
