"""What the kernels compute: as ONNX Runtime does, and the same to the last bit in any company and by any threads."""

import multiprocessing
import multiprocessing.connection
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from server.inference.comparison import SAME_VECTORS, row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.kernels.encoder import KernelEncoder, open_network
from server.inference.kernels.library import Network
from server.inference.manifest import MODEL_FILE, read_manifest
from server.types import Ids, Packing, Vectors
from tests.inference.kernels.conftest import exported, opened

LENGTHS = (
    1,
    2,
    3,
    13,
    14,
    15,
    16,
    17,
    28,
    31,
    32,
    33,
    63,
    64,
    100,
    127,
    128,
    129,
    160,
    255,
    257,
    512,
)
THREADS = (1, 2, 3, 8)
# Of 200 texts by the original model in float32, see tests/export/test_shipped.py.
REFERENCE = Path(__file__).parents[2] / "data" / "bge_small_zh_reference.npz"


def random_texts(lengths: Sequence[int], vocabulary: int = 100, seed: int = 0) -> list[Ids]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, vocabulary, length) for length in lengths]


def alone(network: Network, texts: Sequence[Ids]) -> Vectors:
    return np.concatenate([network.encode([each]) for each in texts])


def by_runtime(artifact: Path, texts: Sequence[Ids]) -> Vectors:
    session = SessionEncoder(str(artifact / MODEL_FILE), Packing(1, 1))
    return np.concatenate([session.encode([each]) for each in texts])


# --- as ONNX Runtime does -------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["cls_artifact", "mean_artifact"])
def test_vectors_agree_with_onnx_runtime_at_any_length(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    artifact: Path = request.getfixturevalue(fixture)
    most = read_manifest(artifact).text.max_tokens
    texts = random_texts([length for length in LENGTHS if length <= most])
    found, expected = alone(opened(artifact), texts), by_runtime(artifact, texts)
    cosines = row_cosines(found, expected)
    assert cosines.min() > 0.99 and cosines.mean() > SAME_VECTORS
    # Where vectors are not normalised, their lengths agree too.
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1), rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("hidden", "heads"), [(384, 12), (512, 8), (768, 12), (1024, 16)], ids=str)
def test_layers_of_real_sizes_agree_with_onnx_runtime(
    hidden: int, heads: int, tmp_path: Path
) -> None:
    sizes = {"hidden": hidden, "heads": heads, "intermediate": 4 * hidden, "max_tokens": 256}
    artifact = exported(tmp_path, texts=20, longest=40, **sizes)
    network, texts = opened(artifact), random_texts((1, 15, 40, 130, 200))
    found = alone(network, texts)
    assert row_cosines(found, by_runtime(artifact, texts)).min() > 0.999
    assert (found == network.encode(texts)).all()


def test_shipped_vectors_of_real_texts_are_as_near_to_float32_as_those_of_onnx_runtime(
    shipped_artifact: Path,
) -> None:
    with np.load(REFERENCE) as stored:
        exact = stored["vectors"]
        texts = list(np.split(stored["ids"].astype(np.int64), stored["offsets"][1:-1]))
    found, expected = alone(opened(shipped_artifact), texts), by_runtime(shipped_artifact, texts)
    cosines = row_cosines(found, expected)
    assert cosines.mean() > SAME_VECTORS and cosines.min() > 0.995
    ours, theirs = (row_cosines(each, exact).mean() for each in (found, expected))
    assert ours > theirs - 1e-4


# --- the same to the last bit ---------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["cls_network", "mean_network"])
def test_every_length_gives_the_same_vector_alone_and_in_any_company(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    network: Network = request.getfixturevalue(fixture)
    most = 512 if fixture == "cls_network" else 64
    texts = random_texts(range(1, most + 1))
    expected = alone(network, texts)
    generator = np.random.default_rng(1)
    order = generator.permutation(most)
    for begin in range(0, most, 16):
        chosen = order[begin : begin + 16]
        found = network.encode([texts[place] for place in chosen], int(generator.integers(1, 4)))
        assert (found == expected[chosen]).all()


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("fixture", ["cls_network", "mean_network"])
def test_any_number_of_threads_gives_the_same_vectors(
    fixture: str, threads: int, request: pytest.FixtureRequest
) -> None:
    network: Network = request.getfixturevalue(fixture)
    for lengths in ((1,), (60,), (3, 40, 17), tuple(range(1, 40)), (64,) * 9):
        texts = random_texts(lengths)
        assert (network.encode(texts, threads) == network.encode(texts)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_call_one_network_at_once(cls_network: Network, threads: int) -> None:
    """A crew is lent to one of them; the others compute alone."""
    batches = [random_texts((5 + place, 40, 130 - place), seed=place) for place in range(16)]
    expected = [cls_network.encode(batch) for batch in batches]
    barrier = threading.Barrier(16)

    def run(place: int) -> bool:
        barrier.wait()
        return all(
            (cls_network.encode(batches[place], threads) == expected[place]).all()
            for _ in range(20)
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(run, range(16)))


def of_fork(
    network: Network, texts: Sequence[Ids], sender: multiprocessing.connection.Connection
) -> None:
    sender.send(network.encode(texts, 2).tobytes())


@pytest.mark.filterwarnings("ignore:This process")
def test_process_that_was_forked_computes_without_the_crew(cls_network: Network) -> None:
    texts = random_texts((9, 20, 130))
    expected = cls_network.encode(texts, 2)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=of_fork, args=(cls_network, texts, sender)
    )
    process.start()
    assert receiver.poll(30) and receiver.recv() == expected.tobytes()
    process.join()


# --- bad input, extreme weights, memory -----------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 10_000, 1 << 40, -(1 << 63)])
def test_token_id_that_there_is_not_is_refused(cls_network: Network, bad: int) -> None:
    with pytest.raises(ValueError, match="token id"):
        cls_network.encode([np.array([1, bad, 2])])


def test_text_of_an_impossible_length_is_refused(cls_network: Network) -> None:
    for length in (0, 513, 100_000):
        with pytest.raises(ValueError, match="length"):
            cls_network.encode([np.array([1, 2]), np.ones(length, np.int64)], 2)
    with pytest.raises(ValueError, match="at least one"):
        cls_network.encode([])
    # The crew is free again, and so is the memory.
    assert np.isfinite(cls_network.encode([np.array([1, 2])], 2)).all()


def test_batch_of_too_many_tokens_is_refused(cls_network: Network) -> None:
    text = np.ones(512, np.int64)
    with pytest.raises(ValueError, match="4,194,304 tokens"):
        cls_network.encode([text] * 8193)


@pytest.mark.parametrize("factor", [0.0, 1e-20, 1e6, 1e18])
def test_extreme_weights_give_numbers_where_onnx_runtime_gives_them(
    cls_artifact: Path, factor: float, tmp_path: Path
) -> None:
    model = onnx.load(cls_artifact / MODEL_FILE)
    for tensor in model.graph.initializer:
        if tensor.name.endswith((".weight_scale", "words.scale", ".bias")):
            array = (numpy_helper.to_array(tensor) * factor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / MODEL_FILE)
    texts = random_texts((1, 30, 140))
    found, expected = alone(open_network(tmp_path / MODEL_FILE), texts), by_runtime(tmp_path, texts)
    assert np.isfinite(found[np.isfinite(expected).all(axis=1)]).all()


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def test_memory_of_large_batches_and_of_threads_that_end_is_given_back(
    cls_network: Network,
) -> None:
    large, small = [np.ones(512, np.int64)] * 200, [np.ones(300, np.int64)] * 40
    cls_network.encode(small)
    before = resident()
    cls_network.encode(large)
    assert resident() - before < 16 << 20
    for _ in range(8):
        # Each keeps some megabytes from batch to batch, for as long as it lives.
        thread = threading.Thread(target=cls_network.encode, args=(small,))
        thread.start()
        thread.join()
    assert resident() - before < 32 << 20


def test_encoder_takes_any_lengths_of_texts(cls_network: Network) -> None:
    encoder = KernelEncoder(cls_network, 512, 2)
    assert encoder.packing.allows(list(range(1, 513)))
    assert encoder.encode(random_texts((3, 9))).dtype == np.float32
