"""Whether a Ray cluster is where somebody says, before Ray waits for it without a word, or for ever."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from perception.errors import ConfigError

SCHEME = "ray://"
_CONNECT_S = 5.0
_ANSWER_S = 20.0
_TOKEN_PLACE = Path(".ray") / "auth_token"
_OF_CLUSTERS = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_OF_CLIENTS = "/ray.rpc.RayletDriver/ClusterInfo"
"""Methods of the program that holds a cluster together, and of its port for clients; each lacks the other."""


def prepare() -> None:
    """Have Ray show the token that there is; it looks once, when it is imported.

    Heads ask for a token by themselves, clients do not send it unless they are told to.
    """
    if _token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _token() -> str:
    """The token for clusters, where Ray looks for it."""
    if own := os.environ.get("RAY_AUTH_TOKEN"):
        return own.strip()
    with contextlib.suppress(RuntimeError, OSError, ValueError):  # no home, no file, no text
        given = os.environ.get("RAY_AUTH_TOKEN_PATH")
        return (Path(given) if given else Path.home() / _TOKEN_PLACE).read_text().strip()
    return ""


def knock(address: str) -> None:
    """Say at once that nobody answers, or somebody else.

    Args:
        address: `ray://HOST:PORT` of a cluster's port for clients, or `HOST:PORT` of the cluster itself.

    Raises:
        ConfigError: it is no address, nobody is there, it is the port for the other way, or it wants another
            token.
    """
    host, _, port = address.removeprefix(SCHEME).rpartition(":")
    if not host or not port.isdigit():
        hint = f"{SCHEME}HOST:10001, or HOST:6379 on a machine of the cluster"
        raise ConfigError("is no address of a cluster", where=address, hint=hint)
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the head cannot be reached: {getattr(error, 'strerror', None) or error}",
            where=address,
            hint="`ray start --head` starts one",
        ) from error
    place, client = f"{host}:{port}", address.startswith(SCHEME)
    status = _asked(place, _OF_CLUSTERS)
    if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        raise ConfigError("who answers there is no Ray head", where=address)
    for_clients = status == "UNIMPLEMENTED"
    if client and not for_clients:
        hint = f"{SCHEME}{host}:10001, or {place} on a machine of the cluster"
        raise ConfigError("is the port of the cluster itself", where=address, hint=hint)
    if for_clients and not client:
        raise ConfigError("is the port for clients", where=address, hint=f"{SCHEME}{place}")
    if client:
        status = _asked(place, _OF_CLIENTS)
    if status == "UNAUTHENTICATED":
        raise ConfigError(
            "the head asks for another token" if _shown() else "the head asks for a token",
            where=address,
            hint="RAY_AUTH_TOKEN, or ~/.ray/auth_token as on the head",
        )


def _shown() -> str:
    """The token that Ray will show."""
    return _token() if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" else ""


def _asked(place: str, method: str) -> str:
    """The name of the gRPC status that HOST:PORT gives to a call of a method, `OK` where it is answered."""
    import grpc  # comes with ray[client]

    token = _shown()
    can = token and token.isascii() and token.isprintable()  # others cannot be shown, nor be one
    shown = (("authorization", f"Bearer {token}"),) if can else ()
    with grpc.insecure_channel(place, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=_ANSWER_S, metadata=shown)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
