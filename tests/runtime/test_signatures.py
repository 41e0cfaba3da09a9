"""Bundles that are signed: what is accepted, and that nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("cryptography")
sys.path.insert(0, str(Path(__file__).parent))

import signed_bundles
from small_bundles import SmallBundles

from perception.cli.main import main
from perception.errors import AnySenseError, BundleError, ConfigError, EngineError
from perception.files.containers import Folder, Zip
from perception.frame import Sample
from perception.runtime import trust
from perception.runtime.bundle import Bundle, record
from perception.runtime.engines import built_here, measured
from perception.runtime.engines.base import UntrustedPlanError
from perception.runtime.engines.plans import FOLDER, PlanHeader, write_plan
from perception.runtime.engines.tensorrt import fitting_plans
from perception.runtime.pipeline import Pipeline
from perception.runtime.records import BackendRecord
from perception.runtime.shelf import entries
from perception.runtime.signatures import SIGNATURES
from perception.runtime.signing import sign_bundle
from perception.runtime.stream import Stream
from perception.runtime.trust import make_keys, read_private, trusted_keys

PASSED = BackendRecord(passed=True, lost=0.2, tolerance=1.0, probe_error=0.01, frames=9)
INPUTS = {"left": ("rgb", "color"), "right": ("rgb", "color")}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, in which nothing is trusted."""
    for name in (trust.REQUIRE_VARIABLE, trust.STORE_VARIABLE, trust.PASSPHRASE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(built_here, "_known", {})
    return tmp_path / "home"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "release")
    return tmp_path / "release"


@pytest.fixture
def store(tmp_path: Path, key: Path) -> Path:
    folder = tmp_path / "trust"
    folder.mkdir()
    shutil.copy(f"{key}.pub", folder)
    return folder


def _sign(folder: Path, key: Path) -> None:
    sign_bundle(Bundle.open(folder), read_private(key), key.name)


def _plan(folder: Path, file: str, content: bytes) -> Path:
    return write_plan(
        folder / FOLDER,
        PlanHeader(
            kind="tensorrt",
            graph=file,
            onnx_sha256=SmallBundles.sha256(folder / file),
            precision="fp16",
            shapes={},
            builder="10.0",
            compute_capabilities=("8.6",),
        ),
        content,
    )


@pytest.fixture
def signed(small: SmallBundles, key: Path) -> Path:
    """A signed bundle with records, a listed file that is no graph, and a plan."""

    def edit(content: dict[str, Any]) -> None:
        content["files"]["notes/readme.txt"] = hashlib.sha256(b"read me").hexdigest()

    folder = small.named(INPUTS, edit=edit)
    (folder / "notes").mkdir()
    (folder / "notes/readme.txt").write_bytes(b"read me")
    record(folder, backends={"onnxruntime-cpu": PASSED}, accuracy={"val": {"frames": 3}})
    _plan(folder, "fuser.onnx", b"a program")
    _sign(folder, key)
    return folder


# -- what is accepted -----------------------------------------------------------------------------


def test_a_signed_bundle_opens_with_and_without_a_look(signed: Path, store: Path) -> None:
    assert Bundle.open(signed).signers == () and Bundle.open(signed).seal is None
    opened = Bundle.open(signed, require_signature=True, trust=store)
    assert opened.signers == ("release",) and opened.records.backends == {"onnxruntime-cpu": PASSED}
    assert Bundle.open(signed, trust=store).signers == ("release",)  # whom to trust asks for it
    assert Bundle.open(signed, trust=store / "release.pub").signers == ("release",)
    assert Bundle.open(signed, verify=False, trust=store).signers == ("release",)


def test_a_zip_of_a_signed_bundle_is_signed(signed: Path, store: Path, tmp_path: Path) -> None:
    flat = shutil.make_archive(str(tmp_path / "flat"), "zip", signed)
    deep = shutil.make_archive(str(tmp_path / "deep"), "zip", signed.parent, signed.name)
    for archive in (flat, deep):
        assert Bundle.open(archive, trust=store).signers == ("release",)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("more.txt", "x")
        with pytest.raises(BundleError, match=r"more\.txt: is not covered by the signature"):
            Bundle.open(archive, trust=store)


def test_several_keys_sign_and_any_that_is_trusted_counts(
    signed: Path, store: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path / "second")
    _sign(signed, tmp_path / "second")
    _sign(signed, tmp_path / "second")
    assert Bundle.open(signed, trust=store).signers == ("release",)
    assert Bundle.open(signed, trust=tmp_path / "second.pub").signers == ("second",)
    shutil.copy(tmp_path / "second.pub", store)
    assert set(Bundle.open(signed, trust=store).signers) == {"release", "second"}
    # Of what the bundle is no more, no signature stays.
    record(signed, accuracy={"test": {"frames": 1}})
    _sign(signed, tmp_path / "second")
    assert Bundle.open(signed, trust=store).signers == ("second",)


def test_where_the_trust_store_is(
    signed: Path, store: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"anysense/trust: there is no such trust store"):
        Bundle.open(signed, require_signature=True)
    (home / ".config/anysense").mkdir(parents=True)
    shutil.copytree(store, home / ".config/anysense/trust")
    assert Bundle.open(signed, require_signature=True).signers == ("release",)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(ConfigError, match=r"config/anysense/trust: there is no such"):
        Bundle.open(signed, require_signature=True)
    monkeypatch.setenv(trust.STORE_VARIABLE, str(store))
    assert Bundle.open(signed, require_signature=True).signers == ("release",)


def test_without_a_home_there_is_one_line(
    signed: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(homeless))
    with pytest.raises(ConfigError, match=r"trust store: there is no home .*ANYSENSE_TRUST"):
        Bundle.open(signed, require_signature=True)
    assert Bundle.open(signed, trust=store).signers == ("release",)


def test_the_environment_asks_for_signatures_and_no_argument_takes_it_back(
    signed: Path, small: SmallBundles, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small.named(INPUTS, name="unsigned")
    monkeypatch.setenv(trust.STORE_VARIABLE, str(store))
    Bundle.open(other)
    monkeypatch.setenv(trust.REQUIRE_VARIABLE, "1")
    assert Bundle.open(signed).signers == ("release",)
    for call in (Bundle.open, Pipeline.load, Stream.open):
        with pytest.raises(BundleError, match="is not signed"):
            call(other, require_signature=False)  # type: ignore[operator]
    named = {one.name: one.problem for one in entries([signed.parent])}
    assert not named[signed.name] and "is not signed" in named["unsigned"]
    monkeypatch.setenv(trust.REQUIRE_VARIABLE, "0")
    Bundle.open(other)


def test_a_pipeline_takes_an_open_bundle_and_asks_how_it_was_opened(
    signed: Path, store: Path
) -> None:
    image = np_image()
    by_path = Pipeline.load(signed, "cpu", threads=1, require_signature=True, trust=store)
    opened = Bundle.open(signed, verify=False, trust=store)
    by_bundle = Pipeline.load(opened, "cpu", threads=1, require_signature=True)
    assert opened.verified
    a, b = by_path({"left": image}).labels, by_bundle({"left": image}).labels
    assert a is not None and b is not None and a.tobytes() == b.tobytes()
    with pytest.raises(BundleError, match="opened without a look at its signature"):
        Pipeline.load(Bundle.open(signed), "cpu", require_signature=True)


def test_an_open_bundle_is_of_a_key_that_is_trusted_where_it_is_loaded(
    signed: Path, store: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path / "other")
    other = tmp_path / "other.pub"
    opened = Bundle.open(signed, trust=store)
    with pytest.raises(BundleError, match="signature by release, which is not trusted here"):
        Pipeline.load(opened, "cpu", threads=1, trust=other)
    shutil.copy(other, store)
    assert Pipeline.load(opened, "cpu", threads=1, trust=store).manifest == opened.manifest


def np_image() -> Sample:
    import numpy as np

    data = np.random.default_rng(0).integers(20, 220, (32, 64, 3), dtype=np.uint8)
    return Sample("rgb", data, stamp_ns=1, sensor="left")


# -- keys -----------------------------------------------------------------------------------------


def test_private_keys_are_for_their_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_keys(tmp_path / "k")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "k.pub").stat().st_mode) == 0o644
    assert trusted_keys(tmp_path / "k.pub") == [made]
    content = (tmp_path / "k").read_bytes()
    for gone in ("k", "k.pub"):
        (tmp_path / gone).rename(tmp_path / "aside")
        (tmp_path / gone).symlink_to("nowhere")  # not even one of these
        with pytest.raises(ConfigError, match="is there already"):
            make_keys(tmp_path / "k")
        (tmp_path / gone).unlink()
        (tmp_path / "aside").rename(tmp_path / gone)
    assert (tmp_path / "k").read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k", "k.pub"]
    with pytest.raises(ConfigError, match="cannot be written"):
        make_keys(tmp_path / "no" / "such" / "k")


def test_encrypted_keys(
    tmp_path: Path,
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "locked"
    assert main(["bundle", "keygen", str(path), "--passphrase"]) == 2
    assert trust.PASSPHRASE_VARIABLE in capsys.readouterr().err and not path.exists()
    monkeypatch.setenv(trust.PASSPHRASE_VARIABLE, "a b")
    assert main(["bundle", "keygen", str(path), "--passphrase"]) == 0
    assert main(["bundle", "sign", str(signed), "--key", str(path)]) == 0
    assert Bundle.open(signed, trust=f"{path}.pub").signers == ("locked",)
    capsys.readouterr()
    for wrong, said in (("x", "the passphrase is not its own"), ("", "is encrypted")):
        monkeypatch.setenv(trust.PASSPHRASE_VARIABLE, wrong)
        assert main(["bundle", "sign", str(signed), "--key", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_what_is_no_key(tmp_path: Path, key: Path, store: Path) -> None:
    rsa = tmp_path / "rsa.pub"
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1())
    pem, info = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    rsa.write_bytes(other.public_key().public_bytes(pem, info))
    (tmp_path / "none.pub").write_bytes(b"\0\1\2")
    (tmp_path / "cut.pub").write_bytes((store / "release.pub").read_bytes()[:60])
    for path, said in (
        (rsa, "is no Ed25519 key"),
        (tmp_path / "none.pub", "is no public key"),
        (tmp_path / "cut.pub", "is no public key"),
        (key, "is a private key"),
        (tmp_path / "missing", "no such trust store"),
        (tmp_path / "home", "no such trust store"),
    ):
        with pytest.raises(ConfigError, match=said):
            trusted_keys(path)
    with pytest.raises(ConfigError, match=r"rsa\.pub: is no Ed25519"):
        shutil.copy(rsa, store)
        trusted_keys(store)
    with pytest.raises(ConfigError, match="is no private key"):
        read_private(Path(f"{key}.pub"))
    (tmp_path / "broken").write_bytes(key.read_bytes().replace(b"M", b"!"))
    with pytest.raises(ConfigError, match="is damaged"):
        read_private(tmp_path / "broken")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="holds no key"):
        trusted_keys(empty)


@pytest.mark.parametrize("wrong", [5, b"store", ["store"], True])
def test_what_is_no_place_of_a_store(signed: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="trust: a folder or a file is wanted, not "):
        Bundle.open(signed, trust=wrong)


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_store_that_others_can_write_to_is_none(store: Path) -> None:
    for place, mode in ((store, 0o777), (store / "release.pub", 0o664), (store.parent, 0o770)):
        before = stat.S_IMODE(place.stat().st_mode)
        place.chmod(mode)
        with pytest.raises(ConfigError, match="is not to be trusted: .* written by others"):
            trusted_keys(store)
        place.chmod(before)
    trusted_keys(store)
    store.parent.chmod(0o1777)  # as /tmp is: nobody can take away what is ours
    trusted_keys(store)
    store.parent.chmod(0o755)


def test_keys_are_those_of_openssl(tmp_path: Path, signed: Path) -> None:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("no openssl here")
    key, public = tmp_path / "ossl", tmp_path / "ossl.pub"
    subprocess.run([tool, "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run([tool, "pkey", "-in", key, "-pubout", "-out", public], check=True)
    _sign(signed, key)
    assert Bundle.open(signed, trust=public).signers == ("ossl",)


# -- what is refused ------------------------------------------------------------------------------


def test_whose_bundle_it_is(small: SmallBundles, signed: Path, store: Path, tmp_path: Path) -> None:
    other = small.named(INPUTS, name="other")
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(other, trust=store)
    make_keys(tmp_path / "stranger")
    _sign(other, tmp_path / "stranger")
    with pytest.raises(BundleError, match=r"signed by no key that is trusted, but by .*release"):
        Bundle.open(other, trust=store)
    shutil.copy(signed / SIGNATURES, other / SIGNATURES)
    with pytest.raises(BundleError, match=r"bundle\.sig is of another bundle\.yaml"):
        Bundle.open(other, trust=store)


def test_records_admit_backends_and_are_covered(signed: Path, store: Path) -> None:
    """Without a record a backend of less than float32 is never chosen: who writes one widens the choice."""
    record(signed, backends={"openvino-bf16": PASSED})
    assert "openvino-bf16" in Bundle.open(signed).records.backends
    with pytest.raises(BundleError, match=r"records\.yaml: was changed after it was signed"):
        Bundle.open(signed, trust=store)
    (signed / "records.yaml").unlink()
    with pytest.raises(BundleError, match=r"records\.yaml"):
        Bundle.open(signed, trust=store)


def test_records_that_come_later_are_not_read(small: SmallBundles, key: Path, store: Path) -> None:
    folder = small.named(INPUTS, name="bare")
    _sign(folder, key)
    assert Bundle.open(folder, trust=store).records.backends == {}
    record(folder, backends={"openvino-bf16": PASSED})
    with pytest.raises(BundleError, match=r"records\.yaml: is not covered"):
        Bundle.open(folder, trust=store)
    _sign(folder, key)
    assert set(Bundle.open(folder, trust=store).records.backends) == {"openvino-bf16"}


def test_nothing_is_interpreted_before_the_signature_fits(
    signed: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perception.runtime import bundle as module

    def parsed(*args: Any, **more: Any) -> Any:
        raise AssertionError("YAML was parsed")

    monkeypatch.setattr(module, "parse_yaml", parsed)
    with pytest.raises(AssertionError):
        Bundle.open(signed)
    path = signed / "bundle.yaml"
    path.write_bytes(path.read_bytes() + b"# more\n")
    with pytest.raises(BundleError, match="another"):
        Bundle.open(signed, trust=store)


def test_only_what_is_covered_is_read(
    signed: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (signed / FOLDER / "other.plan").write_bytes(b"foreign")
    read: list[str] = []
    plain = Folder.read

    def noted(self: Folder, name: str, *limit: int) -> bytes:
        read.append(name)
        return plain(self, name, *limit)

    monkeypatch.setattr(Folder, "read", noted)
    opened = Bundle.open(signed, trust=store)
    assert opened.seal is not None
    covered = {"bundle.yaml", SIGNATURES, *opened.manifest.files, *opened.seal.also}
    assert set(read) == covered and "engines/other.plan" not in covered


def test_a_bundle_that_would_be_refused_is_not_signed(
    signed: Path, key: Path, tmp_path: Path
) -> None:
    (signed / "more.txt").write_text("x")
    with pytest.raises(BundleError, match=r"more\.txt: is not listed"):
        _sign(signed, key)
    (signed / "more.txt").unlink()
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", signed)
    with pytest.raises(BundleError, match="is a zip"):
        _sign(Path(archive), key)
    (signed / "notes/readme.txt").write_text("y")
    with pytest.raises(BundleError, match="checksum"):
        _sign(signed, key)


# -- plans ----------------------------------------------------------------------------------------


def test_trusting_plans_means_signed_ones(signed: Path, store: Path) -> None:
    foreign = _plan(signed, "encoder_color.onnx", b"somebody's program")
    opened = Bundle.open(signed, trust=store)
    (own,) = fitting_plans(opened.source("fuser.onnx", trust_plans=True), "tensorrt")
    assert own.plan == b"a program" and own.host_code
    with pytest.raises(UntrustedPlanError):
        fitting_plans(opened.source("fuser.onnx"), "tensorrt")
    with pytest.raises(UntrustedPlanError):
        fitting_plans(opened.source("encoder_color.onnx", trust_plans=True), "tensorrt")
    unasked = Bundle.open(signed)
    assert fitting_plans(unasked.source("encoder_color.onnx", trust_plans=True), "tensorrt")
    # One that this machine built itself needs nobody's signature.
    graph = opened.manifest.files["encoder_color.onnx"]
    assert built_here.note(graph, foreign.read_bytes(), built_here.Note(False))
    (found,) = fitting_plans(opened.source("encoder_color.onnx", trust_plans=True), "tensorrt")
    assert not found.host_code


def test_a_plan_that_is_changed_after_opening_is_not_run(signed: Path, store: Path) -> None:
    opened = Bundle.open(signed, trust=store)
    (path,) = (signed / FOLDER).glob("*.plan")
    path.unlink()
    _plan(signed, "fuser.onnx", b"another program")
    with pytest.raises(UntrustedPlanError):
        fitting_plans(opened.source("fuser.onnx", trust_plans=True), "tensorrt")


# -- what is loaded is what was hashed ------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("file", ["encoder_color.onnx", "fuser.onnx"])
@pytest.mark.parametrize("device", ["cpu", "openvino-f32"])
def test_a_graph_that_is_swapped_after_opening_is_refused(
    signed: Path, store: Path, file: str, device: str, asked: bool
) -> None:
    if device.startswith("openvino"):
        pytest.importorskip("openvino")
    opened = Bundle.open(signed, trust=store if asked else None)
    kept = (signed / file).read_bytes()
    other = SmallBundles.encoder("rgb", 7, "image", "f") if "encoder" in file else None
    (signed / file).write_bytes(other.SerializeToString() if other else kept + b"\0")
    with pytest.raises((BundleError, EngineError), match=file):
        Pipeline.load(opened, device, threads=1)
    (signed / file).write_bytes(kept)
    pipeline = Pipeline.load(opened, device, threads=1)
    (signed / file).write_bytes(kept + b"\0")
    assert pipeline({"left": np_image()}).labels is not None  # nothing is read any more
    with pytest.raises((BundleError, EngineError), match=file):
        pipeline.use_device(device, 1)


@pytest.mark.parametrize("file", ["bundle.yaml", "records.yaml", "bundle.sig"])
def test_what_was_read_once_is_not_read_again(signed: Path, store: Path, file: str) -> None:
    opened = Bundle.open(signed, trust=store)
    (signed / file).write_bytes(b"schema: 1\n")
    pipeline = Pipeline.load(opened, "cpu", threads=1, require_signature=True)
    assert pipeline({"left": np_image()}).labels is not None
    assert opened.records.backends == {"onnxruntime-cpu": PASSED}


def test_a_zip_that_is_swapped_after_opening_is_refused(
    signed: Path, store: Path, tmp_path: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "b"), "zip", signed))
    opened = Bundle.open(archive, trust=store)
    assert isinstance(opened.files, Zip)
    (signed / "fuser.onnx").write_bytes((signed / "encoder_color.onnx").read_bytes())
    shutil.make_archive(str(tmp_path / "b"), "zip", signed)
    with pytest.raises(BundleError, match=r"fuser\.onnx.*checksum"):
        Pipeline.load(opened, "cpu", threads=1)


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_caches_of_built_engines_are_the_users_own_or_none(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perception.runtime.engines.onnxruntime import provider_options

    source = Bundle.open(signed).source("fuser.onnx")
    told = provider_options("TensorrtExecutionProvider", source)
    place = Path(told["trt_engine_cache_path"])
    assert stat.S_IMODE(place.stat().st_mode) == 0o700 and place.name == source.sha256[:32]
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(shared))
    assert "trt_engine_cache_path" not in provider_options("TensorrtExecutionProvider", source)


def test_what_was_measured_before_brings_in_no_backend_that_is_not_here(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perception.runtime.engines import selection

    monkeypatch.setattr(measured, "recall", lambda key: {"evil": 0.1, selection.REFERENCE: 1.0})
    opened = Bundle.open(signed)
    found = selection.ranking(opened, selection.sources(opened), 1)
    assert found == [selection.REFERENCE]


# -- two thousand changes -------------------------------------------------------------------------


def _all_refused(signed: Path, store: Path, count: int, seed: int) -> None:
    good, bad = signed_bundles.snapshot(signed), signed.parent / "bad"
    tried, kept = 0, set[str]()
    while tried < count:
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(signed, bad)
        rng = random.Random(f"{seed} {tried}")
        done = signed_bundles.mutate(bad, rng)
        seed += 1
        if signed_bundles.snapshot(bad) == good:
            continue
        tried += 1
        kept.update(done)
        try:
            Bundle.open(bad, require_signature=True, trust=store)
        except AnySenseError as error:
            assert isinstance(error, BundleError) and "\n" not in str(error), (done, seed, error)
            assert len(str(error)) < 2000, (done, seed)
            continue
        raise AssertionError(f"accepted after {done}, seed {seed}")
    assert kept == {how.__name__ for how in signed_bundles.MUTATIONS}


def test_changed_bundles_are_refused(signed: Path, store: Path) -> None:
    Bundle.open(signed, trust=store)
    _all_refused(signed, store, 200, 0)


@pytest.mark.slow
def test_two_thousand_changed_bundles_are_refused(signed: Path, store: Path) -> None:
    _all_refused(signed, store, 2000, 10_000)


def test_every_byte_of_what_is_signed_counts(signed: Path, store: Path) -> None:
    for name in ("bundle.yaml", "bundle.sig", "records.yaml"):
        content = (signed / name).read_bytes()
        for at in range(0, len(content), 3 if name == "bundle.sig" else 41):
            changed = bytearray(content)
            changed[at] ^= 1 << at % 8
            (signed / name).write_bytes(changed)
            with pytest.raises(BundleError):
                Bundle.open(signed, trust=store)
        (signed / name).write_bytes(content)
    Bundle.open(signed, trust=store)


@pytest.mark.parametrize("name", ["flat", "deep"])
def test_a_zip_whose_bytes_are_changed_gives_what_was_signed_or_nothing(
    signed: Path, store: Path, tmp_path: Path, name: str
) -> None:
    """Dates and the like in a zip are nobody's: but nothing else is ever read out of it."""
    root = (signed,) if name == "flat" else (signed.parent, signed.name)
    archive = Path(shutil.make_archive(str(tmp_path / name), "zip", *root))
    content, refused = archive.read_bytes(), 0
    opened = Bundle.open(archive, trust=store)
    good = {n: opened.files.read(n) for n in opened.files.everything()}
    rng = random.Random(name)
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 4))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        archive.write_bytes(changed)
        try:
            found = Bundle.open(archive, trust=store)
            assert {n: found.files.read(n) for n in found.files.everything()} == good
        except BundleError:
            refused += 1
    assert refused > 50


# -- the command line -----------------------------------------------------------------------------


def test_the_commands(
    small: SmallBundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key, store = small.named(INPUTS), tmp_path / "k", tmp_path / "trust"
    assert main(["bundle", "keygen", str(key)]) == 0
    assert main(["bundle", "keygen", str(key)]) == 2
    assert main(["bundle", "verify", str(folder), "--key", f"{key}.pub"]) == 2
    assert main(["bundle", "sign", str(folder), "--key", f"{key}.pub"]) == 2
    assert main(["bundle", "sign", str(folder), "--key", str(tmp_path / "no")]) == 2
    capsys.readouterr()
    assert main(["bundle", "sign", str(folder), "--key", str(key)]) == 0
    assert "3 files are signed" in capsys.readouterr().out
    assert main(["bundle", "verify", str(folder)]) == 0
    assert "were not checked" in capsys.readouterr().out
    assert main(["bundle", "verify", str(folder), "--key", f"{key}.pub"]) == 0
    assert "signed by k" in capsys.readouterr().out
    store.mkdir()
    assert main(["bundle", "verify", str(folder), "--trust", str(store)]) == 2
    shutil.copy(f"{key}.pub", store)
    for option in ("--trust", "--trust-store"):
        assert main(["bundle", "verify", str(folder), option, str(store)]) == 0
        assert "signed by k" in capsys.readouterr().out
    for own in (["--trust", str(store)], ["--key", f"{key}.pub"]):  # which one counts?
        words = ["bundle", "verify", str(folder), *own, "--trust-store", str(store)]
        assert main(words) == 2
        assert f"is said twice (leave it out beside {own[0]})" in capsys.readouterr().err
    command = ["bench", str(folder), "--frames", "1", "--warmup", "0", "--threads", "1"]
    command += ["--device", "cpu", "--trust-store", str(store)]
    assert main(command) == 0
    assert trust.REQUIRE_VARIABLE not in os.environ and trust.STORE_VARIABLE not in os.environ
    (folder / SIGNATURES).unlink()
    capsys.readouterr()
    for words in (command, ["bundle", "info", str(folder), "--trust-store", str(store)]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "is not signed" in said and len(said.strip().splitlines()) == 1


def test_the_commands_give_json_and_are_silent_when_told(
    small: SmallBundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = str(small.named(INPUTS)), str(tmp_path / "k")
    found = {}
    for words in (
        ["keygen", key],
        ["sign", folder, "--key", key],
        ["verify", folder, "--key", f"{key}.pub"],
    ):
        assert main(["bundle", *words, "--json"]) == 0
        found[words[0]] = json.loads(capsys.readouterr().out)
    assert found["keygen"]["key"] == found["sign"]["key"] and found["sign"]["files"] == 3
    assert found["verify"]["signed_by"] == ["k"] and found["verify"]["signature_checked"]
    assert main(["bundle", "sign", folder, "--key", key, "-q"]) == 0
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_without_the_package_there_is_one_line(signed: Path, store: Path) -> None:
    """A signed bundle opens where `cryptography` is not; where a signature is asked for, it is named."""
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from perception.runtime.bundle import Bundle\n"
        "from perception.errors import MissingDependencyError\n"
        "assert Bundle.open(sys.argv[1]).manifest\n"
        "from perception.cli.main import main\n"
        "sys.exit(main(['bundle', 'verify', sys.argv[1], '--trust', sys.argv[2]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, signed, store], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "pip install 'anysense[sign]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_upgraded_bundle_is_not_signed_any_more(
    small: SmallBundles, key: Path, store: Path
) -> None:
    from export.bundle_folder import upgrade_bundle

    folder = small()
    _sign(folder, key)
    assert Bundle.open(folder, trust=store).signers == ("release",)  # of schema 1
    assert upgrade_bundle(folder) == folder and not (folder / SIGNATURES).exists()
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(folder, trust=store)
    _sign(folder, key)
    Bundle.open(folder, trust=store)


def test_a_replaced_bundle_is_not_signed_any_more(signed: Path, store: Path) -> None:
    from export.bundle_folder import copy_files, replacing_bundle

    opened = Bundle.open(signed)
    with replacing_bundle(signed, None) as new:
        copy_files(opened, new)
    assert not (signed / SIGNATURES).exists() and yaml.safe_load(
        (signed / "bundle.yaml").read_text()
    )
