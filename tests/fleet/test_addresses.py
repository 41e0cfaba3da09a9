"""Whom `--on HOST:PORT` finds: the cluster itself, its port for clients, somebody else, who wants a token."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="needs grpcio: pip install 'anysense[fleet]'")

import grpc

from perception.errors import ConfigError
from perception.fleet import ray_address
from perception.fleet.ray_address import knock, prepare

TOKEN = "0f" * 32
METHODS = {
    "cluster": "/ray.rpc.NodeInfoGcsService/GetClusterId",
    "clients": "/ray.rpc.RayletDriver/ClusterInfo",
}


class Head(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
    """Answers as one port of a head of Ray 2.60 does, over real gRPC: what it knows, to whom it is to."""

    def __init__(self, part: str, token: str) -> None:
        self._method, self._token = METHODS[part], token

    def service(self, call: Any) -> Any:
        if call.method != self._method:
            return None

        def answer(request: bytes, context: Any) -> bytes:
            shown = dict(context.invocation_metadata()).get("authorization", "")
            if self._token and shown != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid or missing token")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def head(part: str, token: str = "") -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Head(part, token),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)


def test_the_port_for_the_other_way_is_named_with_the_right_one() -> None:
    with head("cluster") as place:
        knock(place)
        with pytest.raises(
            ConfigError, match=r"port of the cluster itself \(ray://127.0.0.1:10001"
        ):
            knock(f"ray://{place}")
    with head("clients") as place:
        knock(f"ray://{place}")
        with pytest.raises(ConfigError, match=rf"is the port for clients \(ray://{place}\)"):
            knock(place)


@pytest.mark.parametrize("part", METHODS)
def test_a_token_is_shown_wherever_it_is_known(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with head(part, TOKEN) as place:
        address = place if part == "cluster" else f"ray://{place}"
        prepare()
        with pytest.raises(ConfigError, match="the head asks for a token .*RAY_AUTH_TOKEN"):
            knock(address)
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("another\n")
        prepare()
        with pytest.raises(ConfigError, match="the head asks for another token"):
            knock(address)
        (tmp_path / ".ray/auth_token").write_text(f"{TOKEN}\n")
        knock(address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "\x01\x7f")
        with pytest.raises(ConfigError, match="the head asks for another token"):
            knock(address)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        (tmp_path / ".ray/auth_token").rename(tmp_path / "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        knock(address)


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_who_is_no_head_is_told_in_time(says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_ANSWER_S", 2.0)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(30)
        held = []

        def serve() -> None:
            for _ in range(20):
                try:
                    held.append(listening.accept()[0])
                    if says:
                        held[-1].sendall(says)
                        held[-1].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        for scheme in ("", "ray://"):
            place = f"{scheme}127.0.0.1:{listening.getsockname()[1]}"
            with pytest.raises(ConfigError, match="who answers there is no Ray head"):
                knock(place)
        listening.close()
        for one in held:
            one.close()
