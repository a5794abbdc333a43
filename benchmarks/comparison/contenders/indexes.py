"""Builds one library's index and searches it: indexes.py LIBRARY ROWS.npy QUERIES.npy

Prints one JSON line per effort: the median CPU time of a search, what was found, build and memory.
"""

import json
import os
import sys
import time

import numpy as np

K = 10


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hnswlib_index(rows):
    import hnswlib

    index = hnswlib.Index(space="ip", dim=rows.shape[1])
    index.init_index(max_elements=len(rows), ef_construction=200, M=16)
    index.set_num_threads(1)
    for start in range(0, len(rows), 65536):
        index.add_items(
            rows[start : start + 65536], np.arange(start, min(start + 65536, len(rows)))
        )

    def search(query, effort):
        index.set_ef(effort)
        return index.knn_query(query[None], k=K)[0][0]

    return search, (32, 64, 128, 256, 512, 1024)


def usearch_index(rows):
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=128)
    for start in range(0, len(rows), 65536):
        some = np.ascontiguousarray(rows[start : start + 65536])
        index.add(np.arange(start, start + len(some)), some, threads=1)

    def search(query, effort):
        index.expansion_search = effort
        return index.search(query, K, threads=1).keys

    return search, (32, 64, 128, 256, 512, 1024)


def faiss_hnsw(rows):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWSQ(
        rows.shape[1], faiss.ScalarQuantizer.QT_fp16, 16, faiss.METRIC_INNER_PRODUCT
    )
    index.hnsw.efConstruction = 128
    index.train(rows[:10000])
    for start in range(0, len(rows), 65536):
        index.add(np.ascontiguousarray(rows[start : start + 65536]))

    def search(query, effort):
        index.hnsw.efSearch = effort
        return index.search(query[None], K)[1][0]

    return search, (32, 64, 128, 256, 512, 1024)


def faiss_ivf(rows):
    import faiss

    faiss.omp_set_num_threads(1)
    lists = 1 << int(np.log2(4.2 * len(rows) ** 0.5))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(rows.shape[1]),
        rows.shape[1],
        lists,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    step = max(1, len(rows) // (16 * lists))
    index.cp.niter = 6
    index.cp.min_points_per_centroid = 1
    index.train(np.ascontiguousarray(rows[::step]))
    for start in range(0, len(rows), 65536):
        index.add(np.ascontiguousarray(rows[start : start + 65536]))

    def search(query, effort):
        index.nprobe = max(1, lists * effort // 256)
        return index.search(query[None], K)[1][0]

    return search, (2, 8, 16, 32, 64, 128)


LIBRARIES = {
    "hnswlib": hnswlib_index,
    "usearch": usearch_index,
    "faiss-hnsw": faiss_hnsw,
    "faiss-ivf": faiss_ivf,
}


def main():
    library, rows, queries = sys.argv[1:]
    rows, queries = np.load(rows, mmap_mode="r"), np.load(queries)
    began = time.thread_time()
    search, efforts = LIBRARIES[library](rows)
    build = time.thread_time() - began
    # The file's pages that were read do not count.
    pages = sum(
        int(line.split()[1]) * 1024
        for line in open("/proc/self/status", encoding="ascii")
        if line.startswith("RssFile")
    )
    held = resident() - pages
    for effort in efforts:
        seconds, found = [], []
        for query in queries:
            began = time.thread_time()
            labels = search(query, effort)
            seconds.append(time.thread_time() - began)
            found.append([int(label) for label in labels])
        line = {
            "effort": effort,
            "cpu_p50_ms": round(float(np.median(seconds)) * 1000, 3),
            "build_cpu_s": round(build, 2),
            "bytes_a_vector": round(held / len(rows)),
            "found": found,
        }
        print(json.dumps(line), flush=True)


main()
