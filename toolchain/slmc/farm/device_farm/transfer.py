"""Files to and from the addresses that Device Farm gives: whoever has such an address may use it, so none is told."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

SILENT_S = 60.0
COPY = 1 << 20


def put(path: Path, url: SecretStr | None, service: str, name: str) -> None:
    """Raises LostConnection where it did not arrive whole, or was not taken."""
    address = _address(url, service, name)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
    with path.open("rb") as content, _transferring(name):
        request = urllib.request.Request(address, content, headers, method="PUT")  # noqa: S310 - of a known scheme
        urllib.request.urlopen(request, timeout=SILENT_S).close()  # noqa: S310


def get(url: SecretStr, service: str, name: str, to: Path, most: int) -> None:
    """Raises LostConnection where it did not come whole, DeviceError for more than `most` bytes."""
    address, size = _address(url, service, name), 0
    with _transferring(name), urllib.request.urlopen(address, timeout=SILENT_S) as answer:  # noqa: S310
        wanted = answer.headers.get("Content-Length")
        with to.open("wb") as file:
            while content := answer.read(COPY):
                size += len(content)
                if size > most:
                    raise DeviceError(f"{name} is larger than {most / 1e6:.0f} MB")
                file.write(content)
        if wanted is not None and size != int(wanted):
            raise LostConnection(f"{name} came in part")


def _address(url: SecretStr | None, service: str, name: str) -> str:
    """Raises DeviceError for one that is less safe than Device Farm's own."""
    address = "" if url is None else url.get_secret_value()
    if urlsplit(address).scheme != urlsplit(service).scheme:
        raise DeviceError(f"Device Farm gives no safe address for {name}")
    return address


@contextmanager
def _transferring(name: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        raise LostConnection(f"{name} was not transferred: HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise LostConnection(f"{name} was not transferred: {type(reason).__name__}") from None
