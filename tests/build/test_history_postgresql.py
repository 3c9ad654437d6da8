"""What holds of a history, in a real PostgreSQL server that lives as long as these tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import text

from slmc.errors import HistoryError
from slmc.farm.history.history import History

from ..unit.farm.history_case import HistoryCase, writing
from ..unit.farm.nights import night, run, series

pytestmark = pytest.mark.build
PASSWORD = "p@ss/w:rd?"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))


def programs() -> Path:
    """The folder of the newest server's programs."""
    if PROGRAMS:
        return PROGRAMS[-1]
    found = shutil.which("initdb")
    if found is None:
        pytest.skip("not run: needs PostgreSQL's server, Debian's package postgresql")
    return Path(found).resolve().parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that asks for a password, without a database's name."""
    folder, port = Path(tempfile.mkdtemp(prefix="slmc-postgresql-")), free_port()
    # PostgreSQL refuses to run as root.
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    (folder / "password").write_text(PASSWORD)
    for path in (folder, folder / "password"):
        os.chown(path, user.pw_uid, user.pw_gid)
    mine = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    initdb = [programs() / "initdb", "-D", folder / "data", "-U", "farm", "-A", "scram-sha-256"]
    made = subprocess.run(
        [*initdb, f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C", "--no-sync"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        **mine,
    )
    assert made.returncode == 0, made.stderr
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [programs() / "postgres", "-D", folder / "data", *options], stderr=log, stdout=log, cwd=folder, **mine
        )
    try:
        url = f"postgresql://farm:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
        wait_for(url, process, folder / "log")
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # ends what is connected, then itself
        process.wait(timeout=60)
        shutil.rmtree(folder)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            psycopg.connect(f"{url}/postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


class TestPostgresql(HistoryCase):
    @pytest.fixture
    def where(self, server: str) -> str:
        """An empty database of its own for each test."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return f"{server}/{name}"

    def test_tables_are_not_emptied(self, where: str) -> None:
        history = History.open(where)
        history.add(night(1, run(series())))
        with pytest.raises(Exception, match="append-only"), writing(history) as connection:
            connection.execute(text("truncate nights, series, circumstances, ladders, results, controls"))
        assert len(history.past().tracks) == 1

    def test_a_wrong_password_is_not_told(self, where: str) -> None:
        wrong = where.replace(quote(PASSWORD, safe=""), "hunter2")
        with pytest.raises(HistoryError, match="password authentication failed") as caught:
            History.open(wrong)
        assert "hunter2" not in str(caught.value)
        assert str(caught.value.where).endswith(wrong.rsplit("@", 1)[1])

    def test_a_database_that_is_not_there(self, server: str) -> None:
        with pytest.raises(HistoryError, match='database "nowhere" does not exist'):
            History.open(f"{server}/nowhere")
