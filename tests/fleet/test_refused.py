"""What a store says when it lets nobody in: one line for the recordings, for `out`, and for parts of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs", reason="needs s3fs: pip install 'anysense[fleet]'")
pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[s3]' flask flask-cors")

import boto3
import s3fs
from moto import settings
from moto.core.responses import ActionAuthenticatorMixin

from perception.fleet.places import Place

Run = Callable[..., dict[str, Any]]
_REGION = {"region_name": "us-east-1"}
_OWN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


@pytest.fixture
def store(
    server: str, fleet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, Any]]:
    """Options for the store, with a bag in its bucket `fleet`; nothing of this machine's own is known."""
    for name in _OWN:
        monkeypatch.setenv(name, "tests")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    boto3.client("s3", endpoint_url=server, **_REGION).create_bucket(Bucket="fleet")
    options = {"s3": {"endpoint_url": server, "client_kwargs": _REGION}}
    Place("s3://fleet/bags/c.mcap", options).put(fleet / "bags/c.mcap")
    s3fs.S3FileSystem.clear_instance_cache()
    yield options
    s3fs.S3FileSystem.clear_instance_cache()


def _refused(found: dict[str, Any]) -> str:
    """The one line that it says."""
    assert found["status"] == 2, found
    (line,) = found["error"].strip().splitlines()
    return str(line)


def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _OWN:
        monkeypatch.delenv(name)


def _half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_OWN[1])


def _stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the store looks at who asks, and knows no one."""
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 1)


def _profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")


REFUSALS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "none": (_nobody, "no credentials were found"),
    "half": (_half, "no credentials were found"),
    "wrong": (_stranger, "the credentials were refused"),
    "profile": (_profile, "profile"),
}


@pytest.mark.parametrize("place", ["recordings", "pattern", "folder", "out"])
@pytest.mark.parametrize("case", list(REFUSALS))
def test_credentials_that_do_not_do_are_one_line(
    batch: Run,
    fleet: Path,
    store: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    case: str,
) -> None:
    spoil, said = REFUSALS[case]
    spoil(monkeypatch)
    there = {
        "recordings": {"recordings": ["s3://fleet/bags/c.mcap"]},
        "pattern": {"recordings": ["s3://fleet/bags/*.mcap"]},
        "folder": {"recordings": ["folder:s3://fleet/drives/*"]},
        "out": {"recordings": [f"{fleet}/bags/c.mcap"], "out": "s3://fleet/out"},
    }[place]
    line = _refused(batch(**there, storage=store))
    assert line.startswith("anysense: error: s3://fleet/") and said in line, line
    assert "AWS_ACCESS_KEY_ID" in line and "Traceback" not in line


@pytest.mark.parametrize("place", ["recordings", "pattern", "out"])
def test_a_bucket_that_is_not_there_is_one_line(
    batch: Run, fleet: Path, store: dict[str, Any], place: str
) -> None:
    there = {
        "recordings": {"recordings": ["s3://missing/bags/c.mcap"]},
        "pattern": {"recordings": ["s3://missing/bags/*.mcap"]},
        "out": {"recordings": [f"{fleet}/bags/c.mcap"], "out": "s3://missing/out"},
    }[place]
    line = _refused(batch(**there, storage=store))
    assert "s3://missing" in line and "no such bucket" in line, line
