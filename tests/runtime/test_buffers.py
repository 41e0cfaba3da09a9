"""Memory plans, pools and links between engines: all of the GPU backend that needs no GPU."""

from __future__ import annotations

import gc
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.data import open_recording
from perception.errors import EngineError
from perception.runtime.engines import cuda_driver_calls
from perception.runtime.engines.base import (
    BackendMissingError,
    DeviceTensor,
    Engine,
    Feed,
    Tensor,
    on_host,
)
from perception.runtime.engines.buffers import ALIGNMENT, Pool, lay_out
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.cuda_memory import LAYERS, cuda_memory, open_memory
from perception.runtime.engines.fallback import FallbackEngine
from perception.runtime.engines.registry import BACKENDS, REFERENCE, candidates
from perception.runtime.pipeline import Pipeline

shapes = st.lists(st.integers(1, 7), max_size=4).map(tuple)
dtypes = st.sampled_from([np.float32, np.uint8, np.float16]).map(np.dtype)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(shapes, dtypes), max_size=8))
def test_tensors_lie_aligned_and_apart(tensors) -> None:  # type: ignore[no-untyped-def]
    layout = lay_out(tensors)
    block = np.zeros(layout.size, np.uint8)
    for number, (name, (shape, dtype)) in enumerate(tensors.items(), 1):
        view = layout.view(block, name)
        assert view.shape == shape and view.dtype == dtype
        assert layout.places[name].offset % ALIGNMENT == 0
        view[...] = number
    for number, name in enumerate(tensors, 1):
        assert (layout.view(block, name) == number).all()  # no other wrote into it


def test_a_pool_lends_again_what_nobody_holds() -> None:
    made = iter(range(100))
    pool = Pool(lambda: [next(made)])
    first, second = pool.take(), pool.take()
    assert first.item != second.item
    kept = first.item
    held = [first]  # as the outputs of one run hold their memory together
    del first
    assert pool.take().item not in (kept, second.item)
    held.clear()
    gc.collect()
    assert pool.made == 3
    again = [pool.take() for _ in range(2)]
    assert pool.made == 3 and kept in [lease.item for lease in again]


def test_a_pool_never_lends_a_thing_twice_at_once() -> None:
    pool = Pool(list[int])
    failures: list[str] = []

    def work(number: int) -> None:
        for _ in range(300):
            lease = pool.take()
            lease.item.append(number)
            if lease.item != [number]:
                failures.append(f"{lease.item}")
            lease.item.clear()
            del lease

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and pool.made <= 4


class _Far(DeviceTensor):
    """An array that counts how often it was fetched."""

    def __init__(self, value: Tensor) -> None:
        self.value, self.shape, self.fetched = value, value.shape, 0

    def numpy(self) -> Tensor:
        self.fetched += 1
        return self.value.copy()


class _Linking(Engine):
    """A real engine that keeps its outputs away, as one on a GPU does, and notes what is ignored."""

    takes_device = True

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.backend = "linking"
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.ignored: list[set[str]] = []
        self.dead = False

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._inner.infer(feeds)

    def infer_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str]
    ) -> Mapping[str, Feed]:
        return {n: _Far(v) for n, v in self._inner.infer(on_host(feeds)).items()}

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        if self.dead:
            raise EngineError("device lost")
        self.ignored.append(set(ignored))
        for value in feeds.values():
            assert not isinstance(value, _Far) or value.fetched == 0
        return self._inner.infer(
            {
                n: np.full(v.shape, np.nan, np.float32)
                if n in ignored
                else (v.value if isinstance(v, _Far) else v)
                for n, v in feeds.items()
            }
        )


def test_features_stay_where_they_are_and_absent_ones_are_not_copied(
    tiny_bundle: Path, simulated: Path
) -> None:
    frame = open_recording("folder", simulated).frame(0)
    wanted = Pipeline.load(tiny_bundle, REFERENCE, threads=1)
    pipeline = Pipeline.load(tiny_bundle, REFERENCE, threads=1)
    linking = {name: _Linking(engine) for name, engine in pipeline.engines.items()}
    pipeline.engines.update(linking)
    for given_frame, absent in (
        (frame, set()),
        (frame.without("depth", "lidar"), {"depth", "lidar"}),
    ):
        pipeline.reset()
        wanted.reset()
        result, expected = pipeline(given_frame), wanted(given_frame)
        assert np.array_equal(result.labels, expected.labels)  # type: ignore[arg-type]
        assert {n.split(".")[0] for n in linking["fuser"].ignored[-1]} == absent


def test_another_backend_takes_over_features_that_lie_on_a_device(
    tiny_bundle: Path, simulated: Path
) -> None:
    frame = open_recording("folder", simulated).frame(0)
    pipeline = Pipeline.load(tiny_bundle, REFERENCE, threads=1)
    expected = pipeline(frame)
    fuser = _Linking(pipeline.engines["fuser"])
    path = pipeline.bundle.file("fuser.onnx")
    for name in ("rgb", "depth", "thermal", "lidar"):
        pipeline.engines[name] = _Linking(pipeline.engines[name])
    pipeline.engines["fuser"] = FallbackEngine(fuser, [REFERENCE], path, 1)
    fuser.dead = True
    pipeline.reset()
    result = pipeline(frame)
    assert np.array_equal(result.labels, expected.labels)  # type: ignore[arg-type]
    assert result.backend == f"{REFERENCE}+linking"


def test_a_device_tensor_of_another_shape_is_refused(tiny_bundle: Path) -> None:
    engine = BACKENDS[REFERENCE].load(tiny_bundle / "encoder_rgb.onnx", 1, 0)
    (taken,) = (spec.name for spec in engine.inputs)
    with pytest.raises(EngineError, match=f"{taken}: input is"):
        engine.run({taken: _Far(np.zeros((1, 3, 8, 8), np.float32))})


def test_the_first_memory_layer_that_works_is_taken_and_the_others_reasons_are_kept() -> None:
    def layer(name: str, error: Exception | None) -> type:
        class Layer(LAYERS[0]):  # type: ignore[misc]
            def __init__(self, device: int) -> None:
                if error is not None:
                    raise error

        Layer.name = name
        return Layer

    broken, absent = layer("a", RuntimeError("no\ndevice")), layer("b", ImportError("no module b"))
    good = layer("c", None)
    assert isinstance(open_memory(0, (broken, absent, good)), good)
    with pytest.raises(BackendMissingError, match=r"a: no; b: no module b") as caught:
        open_memory(0, (broken, absent))
    assert "\n" not in str(caught.value)


def test_backends_are_tried_plans_first_and_the_cpu_last() -> None:
    order = candidates("cuda")
    assert order[:2] == ("tensorrt", "tensorrt-rtx") and order[-1] == "onnxruntime-cpu"
    assert order.index("onnxruntime-tensorrt") < order.index("onnxruntime-cuda")
    assert set(order) <= set(BACKENDS)
    assert candidates("auto") == order[:-1]  # after which comes the fastest on the CPU


def test_without_a_driver_its_calls_are_an_error_in_one_line() -> None:
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        cuda_driver_calls.driver_library("libcuda-that-is-not-there.so")
    if examine_driver().problem:
        with pytest.raises(EngineError):
            cuda_driver_calls.wait(0)
        with pytest.raises(BackendMissingError, match="CUDA memory"):
            cuda_memory(0)


def _driver_memory():  # type: ignore[no-untyped-def]
    return open_memory(0, tuple(layer for layer in LAYERS if layer.name == "driver"))


def test_pycuda_comes_first_and_the_driver_alone_will_do() -> None:
    assert [layer.name for layer in LAYERS] == ["pycuda", "driver"]


def test_all_work_is_done_in_the_primary_context(fake_driver) -> None:  # type: ignore[no-untyped-def]
    memory, calls = _driver_memory(), cuda_driver_calls
    size = 1 << 16
    with pytest.raises(EngineError, match=r"cuMemAlloc_v2: CUDA error 201 \(CUDA_ERROR_INVALID"):
        memory.allocate(size)
    with memory.current():
        owner, stream = memory.stream()
        (first, a), (second, b) = memory.allocate(size), memory.allocate(size)
        up, down = memory.pinned(size), memory.pinned(size)
        up[:] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        event = calls.Event()
        calls.upload(a, up.ctypes.data, size, stream)
        event.record(stream)
        event.hold(stream)
        event.wait()
        calls.copy(b, a, size, stream)
        calls.clear(a, size // 2, stream)
        calls.download(down.ctypes.data, b, size, stream)
        calls.wait(stream)
        assert np.array_equal(up, down)
        calls.download(down.ctypes.data, a, size, stream)
        assert not down[: size // 2].any() and np.array_equal(down[size // 2 :], up[size // 2 :])
        with pytest.raises(EngineError, match="OUT_OF_MEMORY"):
            memory.allocate(1 << 31)
        with memory.current():  # within itself, as when memory is freed in the middle of work
            assert fake_driver.fake_depth() == 2
    assert fake_driver.fake_depth() == 0
    host = up.ctypes.data
    for call in (lambda: calls.upload(a, host, size, stream), lambda: calls.wait(stream)):
        with pytest.raises(EngineError, match="INVALID_CONTEXT"):
            call()
    assert [fake_driver.fake_live(i) for i in range(3)] == [2, 2, 1]
    del owner, first, second
    del up, down
    gc.collect()
    assert [fake_driver.fake_live(i) for i in range(3)] == [0, 0, 0]


def test_the_context_is_given_back_when_work_fails_and_in_every_thread(fake_driver) -> None:  # type: ignore[no-untyped-def]
    memory = _driver_memory()
    failures: list[object] = []

    def work() -> None:
        try:
            for _ in range(50):
                with pytest.raises(ZeroDivisionError), memory.current():
                    memory.allocate(100)  # and dropped at once
                    raise ZeroDivisionError
            failures.append(fake_driver.fake_depth())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert failures == [0, 0, 0, 0] and fake_driver.fake_live(0) == 0


def test_a_gpu_that_is_not_there_is_told(fake_driver) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BackendMissingError, match="driver: cuDeviceGet: CUDA error 101"):
        open_memory(1, LAYERS)


@pytest.fixture(params=LAYERS, ids=lambda layer: layer.name)
def memory(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    if not examine_driver().gpus:
        pytest.skip("no NVIDIA GPU")
    try:
        return open_memory(0, (request.param,))
    except BackendMissingError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
def test_what_is_copied_to_the_gpu_comes_back(memory) -> None:  # type: ignore[no-untyped-def]
    calls = cuda_driver_calls
    with memory.current():
        streams = [memory.stream() for _ in range(2)]  # which live as long as this
        (_, first), (_, second) = streams
        size = 1 << 20
        owners = [memory.allocate(size) for _ in range(2)]
        (_, a), (_, b) = owners
        up, down = memory.pinned(size), memory.pinned(size)
        up[:] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        event = calls.Event()
        event.wait()  # never recorded: at once
        calls.upload(a, up.ctypes.data, size, first)
        event.record(first)
        event.hold(second)

        def work() -> None:
            calls.copy(b, a, size, second)

        work()
        calls.wait(second)
        calls.clear(b, size, second)
        calls.wait(second)
        graph = calls.Graph(second, work)
        graph.launch(second)
        calls.download(down.ctypes.data, b, size, second)
        calls.wait(second)
        del graph, streams, owners
    assert np.array_equal(up, down)


@pytest.mark.gpu
def test_the_memory_layer_lives_beside_pytorch_in_any_thread(memory) -> None:  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA")
    failures: list[Exception] = []

    def work() -> None:
        try:
            x = torch.ones(1000, device="cuda")
            with memory.current():
                owner, _ = memory.allocate(1 << 16)
                del owner
            assert float((x + 1).sum()) == 2000.0
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
