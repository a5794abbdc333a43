"""Plans follow from measured numbers: enough machines, and a reason where none are."""

from dataclasses import replace

import pytest

from benchmarks.capacity.databases import DATABASES, of_pgvector
from benchmarks.capacity.measured import (
    RESULTS,
    SHIPPED,
    Measured,
    NotMeasured,
    Searching,
    dimension,
    measured,
    stored,
)
from benchmarks.capacity.plan import (
    MOST_BUSY,
    Impossible,
    Load,
    Site,
    latency,
    memory,
    one_machine,
    plan,
    share,
    vector_bytes,
    wide,
)
from benchmarks.capacity.service import ServiceTime

FOUND = Measured(
    model="m",
    machine="two",
    cores=2,
    service=ServiceTime(9e-4, 6.3e-5, 2.8e-8),
    wide=1.7,
    crowding=1.1,
    request_s=1.6e-4,
    http_s=5e-4,
    hand_over_s=1e-3,
    tokens_core_s=10_000,
    dimension=512,
    file_bytes=25e6,
    searching=Searching(1e-4, [(60_000, 7e-4), (1_000_000, 3.5e-3)], 0.87, 0.24, 1.7),
    writing=2.4,
    code_bytes=106,
    document_bytes=2968,
)
LOAD = Load(documents=1_000_000, queries_s=20, p99_s=0.1)
SITE = Site()


def test_plan_keeps_its_p99_and_one_machine_less_does_not() -> None:
    load = replace(LOAD, queries_s=2000)
    made = plan(load, SITE, FOUND)
    assert made.nodes > 1
    assert made.latency.p99_s <= load.p99_s and made.latency.busy <= MOST_BUSY
    with pytest.raises(Impossible):
        plan(replace(load, queries_s=load.queries_s * 1e6), SITE, FOUND)
    fewer = share(load, SITE, made.nodes - 1)
    try:
        found = latency(fewer, SITE, FOUND)
    except Exception as reason:
        assert "arrive a second" in str(reason)
    else:
        assert found.p99_s > load.p99_s or found.busy > MOST_BUSY


def test_more_of_anything_never_needs_fewer_machines() -> None:
    def nodes(load: Load) -> int:
        return plan(load, SITE, FOUND).nodes

    rates = [nodes(replace(LOAD, queries_s=rate)) for rate in (1, 100, 500, 1000, 3000)]
    assert rates == sorted(rates)
    tight = [nodes(replace(LOAD, queries_s=1000, p99_s=limit)) for limit in (1, 0.1, 0.05, 0.03)]
    assert tight == sorted(tight)
    sizes = [nodes(replace(LOAD, queries_s=500, documents=n)) for n in (10**5, 10**6, 5 * 10**6)]
    assert sizes == sorted(sizes)


def test_impossible_p99_is_answered_with_the_time_that_is_possible() -> None:
    with pytest.raises(Impossible, match=r"p99 of 1\.0 ms cannot be kept.*already takes \d\.\d ms"):
        plan(replace(LOAD, p99_s=0.001), SITE, FOUND)


def test_time_of_a_database_counts_where_there_is_one() -> None:
    slow = replace(SITE, database_s=3600.0)
    with pytest.raises(Impossible, match=r"3,600,000\.0 ms in the database"):
        plan(LOAD, replace(slow, store="qdrant"), FOUND)
    with pytest.raises(Impossible, match="name it with --store"):
        plan(LOAD, slow, FOUND)


def test_documents_of_a_million_tokens_end_at_a_number_of_documents() -> None:
    assert (
        plan(replace(LOAD, documents=10, document_tokens=10**6), SITE, FOUND).most_documents < 10**5
    )


def test_machine_too_small_for_the_model_is_named() -> None:
    small = replace(SITE, store="qdrant", memory_bytes=1e8)
    with pytest.raises(Impossible, match=r"the model alone needs 0\.\d GB .* which has 0\.1 GB"):
        plan(LOAD, small, FOUND)


def test_one_machine_ends_at_the_limit_that_is_reached_first() -> None:
    small = replace(SITE, memory_bytes=4e9)
    most, limit = one_machine(LOAD, small, FOUND)
    assert limit == "memory"
    assert memory(replace(LOAD, documents=int(most)), small, FOUND) <= 4e9
    assert memory(replace(LOAD, documents=int(most * 1.01)), small, FOUND) > 4e9
    assert one_machine(LOAD, replace(SITE, disk_bytes=5e9), FOUND)[1] == "disk"
    assert one_machine(replace(LOAD, p99_s=0.02), SITE, FOUND)[1] == "p99"
    with pytest.raises(Impossible, match="one machine ends at .* by its memory.*--store qdrant"):
        plan(replace(LOAD, documents=10**8), small, FOUND)


def test_memory_and_disk_grow_with_the_documents() -> None:
    one, ten = plan(LOAD, SITE, FOUND), plan(replace(LOAD, documents=10**7), SITE, FOUND)
    assert ten.memory_bytes - one.memory_bytes == pytest.approx(9e6 * vector_bytes(FOUND) * 1.5)
    assert ten.disk_bytes == pytest.approx(10 * one.disk_bytes)
    assert one.first_index_s == pytest.approx(1e6 * 124 / (10_000 * 8))
    long = plan(replace(LOAD, document_tokens=1024), SITE, FOUND)
    assert long.memory_bytes - one.memory_bytes == pytest.approx(1e6 * vector_bytes(FOUND) * 1.5)


def test_writes_take_of_every_machine_with_a_local_store_and_are_shared_beside_a_database() -> None:
    load = replace(LOAD, writes_s=60)
    assert share(load, SITE, 4).writes_s == 60
    assert share(load, replace(SITE, store="qdrant"), 4).writes_s == 15
    quiet, busy = (plan(each, SITE, FOUND).latency for each in (LOAD, load))
    assert busy.busy > quiet.busy and busy.p99_s > quiet.p99_s
    with pytest.raises(Impossible, match="written to each of them"):
        plan(replace(LOAD, writes_s=10_000), SITE, FOUND)


def test_a_billion_documents_need_a_database_of_the_size_that_its_documentation_gives() -> None:
    load, site = replace(LOAD, documents=10**9), replace(SITE, store="qdrant", replicas=2)
    made = plan(load, site, FOUND)
    assert made.database_bytes == pytest.approx(2 * 1e9 * 512 * 4 * 1.5)
    assert made.database_nodes == 2 * 48 and made.nodes >= 2
    assert made.disk_bytes == 0
    known = replace(site, database_s=0.01)
    assert plan(load, known, FOUND).latency.p99_s == pytest.approx(made.latency.p99_s + 0.01)


def test_pages_of_postgres_hold_whole_vectors() -> None:
    # Three of 512 numbers, two of 768, one of 1,024.
    assert [round(8192 / of_pgvector(n)) for n in (512, 768, 1024)] == [3, 2, 1]
    assert DATABASES["milvus"].bytes_of(512) == 512 * 4 + 128


def test_cost_is_that_of_the_cores_in_a_month() -> None:
    made = plan(LOAD, replace(SITE, core_hour=0.05), FOUND)
    assert made.cost_a_month == pytest.approx(8 * 0.05 * 730)


def test_threads_of_a_lone_text_follow_from_two() -> None:
    assert wide(2.0, 8) == pytest.approx(8) and wide(1.7, 2) == pytest.approx(1.7)
    assert wide(1.0, 8) == pytest.approx(1) and wide(1.7, 64) == wide(1.7, 8)


def test_search_time_is_read_between_measured_sizes_and_goes_on_past_them() -> None:
    searching = FOUND.searching
    assert searching.of_index(60_000) == pytest.approx(7e-4)
    assert searching.of_index(530_000) == pytest.approx((7e-4 + 3.5e-3) / 2)
    slope = (3.5e-3 - 7e-4) / 940_000
    assert searching.of_index(2_000_000) == pytest.approx(3.5e-3 + 1e6 * slope)
    assert searching.of_index(0) == pytest.approx(7e-4 - 60_000 * slope)
    assert searching.of_index(60_000, filtered=0.5) == pytest.approx(7e-4 * 1.35)


def test_stored_lines_have_all_that_the_computation_needs() -> None:
    assert RESULTS.is_dir()
    lines = stored()
    shipped, base = measured(lines), measured(lines, "bge-base-zh-v1.5")
    assert 5_000 < shipped.tokens_core_s < 50_000 and shipped.dimension == 512
    assert base.tokens_core_s < shipped.tokens_core_s / 3 and base.dimension == 768
    assert base.service.of([128]) > 3 * shipped.service.of([128])
    assert dimension(SHIPPED) == 512
    with pytest.raises(NotMeasured, match="families.*unknown"):
        measured(lines, "unknown")
    with pytest.raises(NotMeasured, match="no line of the case"):
        measured([])
