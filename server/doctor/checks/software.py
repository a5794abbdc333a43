"""The artifacts that are served, the packages that serve them, and the clock."""

from collections.abc import Iterator

from server import BUILT
from server.doctor.facts import Artifact, Facts
from server.doctor.findings import Finding, Said, refusal
from server.inference.encoder import SAME_VECTORS

MOST_NAMED = 5


def of_models(facts: Facts) -> Iterator[Finding]:
    seen: set[str] = set()
    for artifact in facts.artifacts:
        if artifact.error is not None:
            yield refusal("model", artifact.error)
        elif artifact.fingerprint in seen:
            yield Finding(
                "error",
                "model",
                Said(f"{artifact.place} is given twice", f"{artifact.place} 重复给出"),
                Said("leave out one --model", "请去掉一个 --model"),
            )
        else:
            seen.add(artifact.fingerprint)
            yield _of_model(artifact)


def _of_model(artifact: Artifact) -> Finding:
    bits = "float32"
    if artifact.quantization is not None:
        bits = f"{artifact.quantization.weight_bits}-bit"
    found = Said(
        f"{artifact.place}: hashes agree; {bits} weights, self-test cosine {artifact.cosine:.6f} to"
        f" the exporting machine ({artifact.exported_on})",
        f"{artifact.place}：哈希一致；{bits} 权重，与导出机器（{artifact.exported_on}）自检余弦"
        f" {artifact.cosine:.6f}",
    )
    if artifact.cosine >= SAME_VECTORS:
        return Finding("ok", "model", found)
    return Finding(
        "warning",
        "model",
        found,
        Said(
            "its vectors are nearly as close to float32 as the exporting machine's, and not the same: export"
            " here if all of them are made here, or with --weight-bits 7 for machines of both kinds",
            "其向量与 float32 的接近程度和导出机器几乎相同，但两者的向量并不一致：若向量都在本机计算，请在本机导出；"
            "若有两类机器，请用 --weight-bits 7 导出",
        ),
    )


def of_python(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.machine.python))
    if facts.packages is None:
        yield Finding(
            "ok",
            "python",
            Said(
                f"Python {version}; no lock beside the program to compare packages with",
                f"Python {version}；程序旁没有锁定文件，未比较软件包版本",
            ),
        )
    elif not facts.packages:
        found = Said(
            f"Python {version}, packages as locked", f"Python {version}，软件包与锁定版本一致"
        )
        yield Finding("ok", "python", found)
    else:
        shown = [
            f"{each.name} {each.found} ({each.locked})" for each in facts.packages[:MOST_NAMED]
        ]
        number, listed = len(facts.packages), ", ".join(shown)
        yield Finding(
            "warning",
            "python",
            Said(
                f"Python {version}; {number} packages are not of the locked version: {listed}",
                f"Python {version}；{number} 个软件包与锁定版本不同：{listed}",
            ),
            Said(
                "install what was tested: pip install --no-deps --require-hashes -r locks/run.txt",
                "请安装经过测试的版本：pip install --no-deps --require-hashes -r locks/run.txt",
            ),
        )


def of_clock(facts: Facts) -> Iterator[Finding]:
    day = facts.machine.day
    found = Said(f"today is {day} (UTC)", f"今天是 {day}（UTC）")
    if day >= BUILT:  # as text, which orders as the days do
        yield Finding("ok", "clock", found)
        return
    yield Finding(
        "warning",
        "clock",
        Said(
            f"{found.english}, before this version was made ({BUILT})",
            f"{found.chinese}，早于本版本的制作日期（{BUILT}）",
        ),
        Said(
            "set the clock: nothing stored depends on it, but logs and certificates do",
            "请校准时钟：存储的数据不受影响，但日志与证书依赖它",
        ),
    )
