"""`slmc report`, and the chat that it tells, here a server of this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slmc.cli.main import cli
from slmc.errors import HistoryError, InputError, SlmcError
from slmc.farm.morning import webhook
from slmc.farm.morning.webhook import MOST, post

from .morning_case import farm_nights, kept

SECRET = "T0K3N"


@dataclass
class Chat:
    """Answers with a status, and keeps what it was told."""

    url: str = ""
    status: int = 200
    told: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def chat() -> Iterator[Chat]:
    found = Chat()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.told.append((self.path, dict(self.headers), body))
            self.send_response(found.status)
            if found.status in (301, 307):
                self.send_header("Location", f"{found.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            found.told.append((self.path, {}, b"followed"))
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/services/{SECRET}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    kept(farm_nights(), folder)
    return folder / "history.sqlite"


def asked(*words: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli, ["report", *map(str, words)])


def test_the_report_is_written_where_it_was_asked_for(database: Path, tmp_path: Path) -> None:
    done = asked(tmp_path / "site", "--db", database)
    assert done.exit_code == 0, done.output
    assert "night-13: 1 fail, 1 not run, 1 regression, 1 worse, 1 can't tell, 2 pass, 1 not asked" in done.output
    there = {path.name for path in (tmp_path / "site").iterdir()}
    assert {"index.html", "recipe-router.html", "junit.xml", "report.json", "summary.md"} <= there


def test_a_night_and_a_recipe_can_be_chosen(database: Path, tmp_path: Path) -> None:
    done = asked(tmp_path / "site", "--db", database, "--night", "night-7", "--recipe", "retired")
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "site" / "report.json").read_text())
    assert (told["night"], [one["series"]["recipe"] for one in told["series"]]) == ("night-7", ["retired"])


def test_no_history_is_told(tmp_path: Path) -> None:
    assert isinstance(asked(tmp_path / "site", "--db", tmp_path / "none.sqlite").exception, HistoryError)
    kept([], tmp_path)
    empty = asked(tmp_path / "site", "--db", tmp_path / "history.sqlite").exception
    assert isinstance(empty, InputError)
    assert "slmc nightly" in str(empty)
    assert not (tmp_path / "site").exists()


def test_the_chat_is_told_and_the_secret_is_not(database: Path, tmp_path: Path, chat: Chat) -> None:
    done = asked(tmp_path / "site", "--db", database, SLMC_WEBHOOK=chat.url)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    [(path, headers, body)] = chat.told
    assert path == f"/services/{SECRET}"
    assert headers["Content-Type"].startswith("application/json")
    text = json.loads(body)["text"]
    assert text.startswith("night-13: 1 fail")
    assert "regression: router on shelf-1" in text


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_a_chat_that_refuses_is_an_error_without_the_secret(
    status: int, database: Path, tmp_path: Path, chat: Chat
) -> None:
    chat.status = status
    done = asked(tmp_path / "site", "--db", database, "--webhook", chat.url)
    assert isinstance(done.exception, SlmcError)
    assert f"it answers {status}" in str(done.exception)
    assert SECRET not in str(done.exception) + done.output
    assert done.exception.__cause__ is None
    assert len(chat.told) == 1  # nobody else was told
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.parametrize(
    "url",
    [
        f"http://chat.example/{SECRET}",
        f"http://localhost.example/{SECRET}",
        f"http://localhost@chat.example/{SECRET}",
        f"ftp://localhost/{SECRET}",
        f"file:///{SECRET}",
        f"https:///{SECRET}",
        f"https://[{SECRET}/",
        f"https://host:{SECRET}/",
        SECRET,
    ],
)
def test_a_url_that_may_not_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as refused:
        post(url, ["hello"])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("url", [f"http://localhost:1/{SECRET}\n", f"http://localhost:1/ {SECRET} \x01ü"])
def test_what_no_request_can_be_made_of_is_not_repeated(url: str) -> None:
    with pytest.raises(SlmcError) as refused:
        post(url, ["hello"])
    assert SECRET not in str(refused.value)


def test_nobody_there_and_nobody_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{SECRET}"
        with pytest.raises(SlmcError, match="refused"):
            post(url, ["hello"])
        free.listen()
        monkeypatch.setattr(webhook, "WAIT_S", 0.2)
        with pytest.raises(SlmcError, match="no answer within"):
            post(url, ["hello"])


def test_text_is_escaped_and_cut_as_slack_wants_it(chat: Chat) -> None:
    post(chat.url, ["<!channel> & <http://x|y>", "x" * 2 * MOST])
    text = json.loads(chat.told[0][2])["text"]
    assert text.startswith("&lt;!channel&gt; &amp; &lt;http://x|y&gt;\nxxx")
    assert text.endswith("x…")
    assert len(text) < MOST + 100


def test_what_is_not_encrypted_stays_on_this_machine(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    post(chat.url, ["hello"])
    assert len(chat.told) == 1
