"""Connections over SSH: by keys alone, to hosts whose keys are known, through the jumps that ~/.ssh/config names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError

CONNECT_S = 20.0
"""For each host on the way, keys and all."""
KEEPALIVE_S = 10.0
"""How long a host may say nothing before it is asked whether it is there."""
KEEPALIVE_MISSES = 3
"""Questions left unanswered before the connection counts as lost."""
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?:\[(?P<literal>[^]]+)\]|(?P<host>[^:@]+))(?::(?P<port>\d+))?")
_HOST_KEYS = "+ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-256,rsa-sha2-512"
"""After the kinds that a host is known by: one that shows only others is to be told as another host."""
_REFUSED = (asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported, asyncssh.IllegalUserName)


@dataclass(frozen=True)
class Way:
    """To one host; what is None is what ~/.ssh/config says, else SSH's custom."""

    host: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    known_hosts: Path | None = None

    def __str__(self) -> str:
        port = [] if self.port is None else ["-p", str(self.port)]
        return " ".join(["ssh", *port, self.host if self.user is None else f"{self.user}@{self.host}"])


async def connect(way: Way, coming_from: Sequence[str] = ()) -> asyncssh.SSHClientConnection:
    """Raises LostConnection where the host or a jump can't be reached, DeviceError where one is not to be trusted or
    refuses.
    """
    client = _Client()
    options = await _options(way, client)
    jumps = [parse_jump(text) for text in str(options.tunnel).split(",")] if options.tunnel else []
    jump = None
    # A ProxyJump for all hosts holds for its own too, which would never end.
    if jumps and way.host not in (*coming_from, *(hop.host for hop in jumps)):
        jump = await _connect_jumps(jumps, (*coming_from, way.host))
    try:
        return await _connect(way, options, client, jump)
    except BaseException:
        if jump is not None:
            jump.abort()
        raise


async def _connect_jumps(jumps: Sequence[Way], coming_from: Sequence[str]) -> asyncssh.SSHClientConnection:
    """To the last of ProxyJump's hosts; the first may have jumps of its own."""
    connection = await connect(jumps[0], coming_from)
    for way in jumps[1:]:
        client = _Client()
        try:
            connection = await _connect(way, await _options(way, client), client, connection)
        except BaseException:
            connection.abort()
            raise
    return connection


def parse_jump(text: str) -> Way:
    """One of ProxyJump's hosts: [user@]host[:port], or the same as a URI. Raises DeviceError."""
    found = _JUMP.fullmatch(text.strip())
    if not found:
        raise DeviceError(f"ProxyJump {text!r}", where="~/.ssh/config", expected="[user@]host[:port]")
    port = found["port"]
    return Way(found["literal"] or found["host"], found["user"], None if port is None else int(port))


async def _connect(
    way: Way,
    options: asyncssh.SSHClientConnectionOptions,
    client: _Client,
    jump: asyncssh.SSHClientConnection | None,
) -> asyncssh.SSHClientConnection:
    files = _known_hosts_files(way, options)
    known = _load_known_hosts(files)
    try:
        connection = await asyncssh.connect(
            way.host, options.port, tunnel=jump, config=None, options=options, known_hosts=known
        )
    except asyncssh.PermissionDenied as error:
        raise _denied(way, options.username, error.reason) from None
    except asyncssh.HostKeyNotVerifiable as error:
        raise _untrusted(way, client.shown, known, files, error.reason) from None
    except _REFUSED as error:
        raise DeviceError(f"the SSH server can't be used: {error.reason}", where=way) from None
    except (asyncssh.Error, OSError) as error:
        if "authentication failures" in str(error):
            raise _denied(way, options.username, str(error)) from None
        raise LostConnection(f"can't be reached: {reason_of(error)}", where=way) from None
    if jump is not None:
        connection.set_tunnel(jump)  # which is closed with it
    return connection


class _Client(asyncssh.SSHClient):
    """Trusts no key that is not among the known; keeps the one that was shown, to tell of it."""

    def __init__(self) -> None:
        self.shown: _Shown | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = _Shown(host, addr, None if port == asyncssh.DEFAULT_PORT else port, key)
        return False


@dataclass(frozen=True)
class _Shown:
    host: str
    address: str
    port: int | None
    """None for SSH's own: so are hosts named in known_hosts."""
    key: asyncssh.SSHKey

    @property
    def name(self) -> str:
        return self.host if self.port is None else f"[{self.host}]:{self.port}"


def reason_of(error: Exception) -> str:
    """In one line, where the error itself may say nothing."""
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    return " ".join(str(error).split()) or type(error).__name__


async def _options(way: Way, client: _Client) -> asyncssh.SSHClientConnectionOptions:
    given = {"username": way.user, "port": way.port}
    try:
        options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
            config=(),  # that is ~/.ssh/config
            host=way.host,
            server_host_key_algs=_HOST_KEYS,
            client_factory=lambda: client,
            preferred_auth="publickey",
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_auth=False,
            gss_kex=False,
            agent_forwarding=False,
            x11_forwarding=False,
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_MISSES,
            **{name: value for name, value in given.items() if value is not None},
            **({} if way.key is None else _key_alone(way.key)),
        )
    except (OSError, ValueError) as error:
        todo = "look at the key given and at ~/.ssh/config"
        raise DeviceError(f"the keys or settings of SSH can't be used: {error}", where=way, todo=todo) from None
    return options


def _key_alone(key: Path) -> dict[str, object]:
    """Options for one key; where it has a passphrase, the agent signs for it, which knows it by KEY.pub."""
    public = key.with_name(f"{key.name}.pub")
    agent: dict[str, object] = {"agent_identities": [str(public)]} if public.exists() else {"agent_path": None}
    return {"client_keys": [str(key)], "ignore_encrypted": True, **agent}


def _known_hosts_files(way: Way, options: asyncssh.SSHClientConnectionOptions) -> list[Path]:
    """Never none: UserKnownHostsFile's "none" means the usual file, not that every host is trusted."""
    if way.known_hosts is not None:
        return [way.known_hosts]
    configured = options.known_hosts if isinstance(options.known_hosts, list) else []
    return [Path(str(name)).expanduser() for name in configured or ["~/.ssh/known_hosts"]]


def _load_known_hosts(files: Sequence[Path]) -> asyncssh.SSHKnownHosts:
    known = asyncssh.SSHKnownHosts()
    for file in files:
        try:
            known.load(file.read_text())
        except FileNotFoundError:
            continue  # no host is known by it
        except (OSError, ValueError) as error:
            raise DeviceError(f"known hosts can't be read: {error}", where=file) from None
    return known


def _denied(way: Way, user: str, reason: str) -> DeviceError:
    return DeviceError(
        f"no key was accepted for {user}: {reason}",
        where=way,
        todo="add this machine's public key to ~/.ssh/authorized_keys there, as ssh-copy-id does; a key with a "
        "passphrase is used only through ssh-agent (ssh-add), for a key named here with its .pub file beside it",
    )


def _untrusted(
    way: Way, shown: _Shown | None, known: asyncssh.SSHKnownHosts, files: Sequence[Path], reason: str
) -> DeviceError:
    """The host's key is unknown, another than the known one, or revoked; `files` are where it was looked for."""
    where = f"{way}; {', '.join(map(str, files))}"
    if shown is None:
        return DeviceError(f"the host key is refused: {reason}", where=where)
    kind, fingerprint = shown.key.get_algorithm(), shown.key.get_fingerprint()
    by_hand = f"{way} -o UserKnownHostsFile={files[0]}"
    compare = f"answer yes only if the device's own ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub prints {fingerprint}"
    if known.match(shown.host, shown.address, shown.port)[0]:
        return DeviceError(
            f"the host key of {shown.name} is not the known one: it showed {kind} {fingerprint}",
            where=where,
            todo="another machine may answer in its place: find out first. Where the device was set up anew: "
            f"ssh-keygen -R '{shown.name}' -f {files[0]}, then {by_hand}, and {compare}",
        )
    return DeviceError(
        f"the host key of {shown.name} is not known: it showed {kind} {fingerprint}",
        where=where,
        todo=f"{by_hand}, and {compare}",
    )
