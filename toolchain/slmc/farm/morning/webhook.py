"""Tell a chat: a JSON text as Slack's incoming webhooks take it, and others that follow them.

The URL is a secret: whoever has it may write there. It is told nowhere, in no error either, and followed to no other.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Sequence
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from slmc.errors import InputError, SlmcError

WAIT_S = 15
MOST = 3000
"""Characters of text, which Slack shows as one message."""
LOCAL = ("localhost", "127.0.0.1", "::1")
"""Where a URL without encryption may lead."""


class _Stay(HTTPRedirectHandler):
    """Another address is an error, not the next one to tell."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def post(url: str, lines: Sequence[str]) -> None:
    """Raises InputError for a URL that is none or not https, SlmcError where nobody takes it in time."""
    _check(url)
    try:
        body = json.dumps({"text": escape("\n".join(lines))}).encode()
        request = Request(url, body, {"Content-Type": "application/json; charset=utf-8"})  # noqa: S310 - checked above
        with _opener(url).open(request, timeout=WAIT_S):
            return
    except HTTPError as error:
        error.close()
        raise _refused(f"it answers {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # None of their texts is repeated: some hold the URL.
        raise _refused(_cause(error)) from None


def escape(text: str) -> str:
    """What Slack would take for a link, a mention or an entity; cut where it gets long."""
    cut = text if len(text) <= MOST else f"{text[: MOST - 1]}…"
    return cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _opener(url: str) -> OpenerDirector:
    """By the proxies that the environment names, but what is not encrypted stays on this machine."""
    return build_opener(_Stay) if urlsplit(url).scheme == "https" else build_opener(_Stay, ProxyHandler({}))


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        fine = bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)
        )
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        fine = False
    if not fine:
        raise InputError("the webhook's URL can't be used", expected="https://HOST/PATH, as the chat gives it")


def _cause(error: Exception) -> str:
    inner = error.reason if isinstance(error, URLError) else error
    if isinstance(inner, TimeoutError):
        return f"no answer within {WAIT_S} s"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return "its certificate can't be trusted"
    return (inner.strerror if isinstance(inner, OSError) else None) or type(inner).__name__


def _refused(cause: str) -> SlmcError:
    return SlmcError(
        f"the webhook did not take the summary: {cause}",
        todo="the report is written; see that the webhook is there and that this machine may reach it",
    )
