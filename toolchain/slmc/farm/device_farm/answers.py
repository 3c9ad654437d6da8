"""AWS Device Farm's answers, as far as they matter here, and its errors as ours."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError

_PASSING = ("Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded")
"""Too much was asked at once."""


class GoneError(DeviceError):
    """There is nothing of that ARN any more."""


class _Theirs(BaseModel):
    """Of an answer's keys those that matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Upload(_Theirs):
    arn: str
    name: str
    status: str
    url: SecretStr | None = None
    message: str = ""
    metadata: str = ""


class Run(_Theirs):
    arn: str
    name: str = ""
    status: str
    result: str = ""
    message: str = ""
    created: datetime.datetime | None = None


class Artifact(_Theirs):
    name: str
    type: str
    url: SecretStr


class TheirDevice(_Theirs):
    name: str
    manufacturer: str = ""
    platform: str
    os: str = ""
    availability: str = ""


class Job(_Theirs):
    arn: str
    message: str = ""


Found = TypeVar("Found", bound=_Theirs)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Around what Device Farm is asked. Raises LostConnection where it may answer another time, InputError where AWS is
    not set up here, GoneError where there is no such thing, else DeviceError.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except ClientError as error:
        told, status = error.response["Error"], error.response["ResponseMetadata"].get("HTTPStatusCode", 400)
        said = f"Device Farm says to {what}: {told['Code']}: {told.get('Message', '')}"
        if status >= 500 or told["Code"] in _PASSING:
            raise LostConnection(said) from None
        kind = GoneError if told["Code"] == "NotFoundException" else DeviceError
        raise kind(said, todo=_todo(told["Code"])) from None
    except (HTTPClientError, ConnectionError) as error:
        raise LostConnection(f"Device Farm can't be reached for {what}: {type(error).__name__}") from None
    except BotoCoreError as error:
        todo = "`aws configure`, or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise InputError(f"AWS can't be asked: {error}", todo=todo) from None


def _todo(code: str) -> str | None:
    if code.startswith("AccessDenied"):
        return "allow these credentials the device farm's actions: docs/devices.md names them"
    if code in ("UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"):
        return "log in to AWS anew"
    return None


def read(kind: type[Found], answer: object) -> Found:
    try:
        return kind.model_validate(answer)
    except ValidationError as invalid:
        key = ".".join(map(str, invalid.errors(include_url=False, include_input=False)[0]["loc"]))
        raise DeviceError(f"Device Farm answers without a fit {key!r}") from None
