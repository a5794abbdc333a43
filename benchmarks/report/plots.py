"""Results as plots: throughput against latency, and speed against quality.

`throughput` and `frontier` choose the points, from lines alone; `drawn` makes SVG of them. The same
lines give the same bytes: no date, no version, no random names. Text stays text, so that it can be read
at any size and a changed number changes one line.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.machine import Line

STYLE = {
    "svg.hashsalt": "inkwell",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Colours that colour-blind readers can distinguish; contenders also have marks of their own.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKS = "os^DvP*X"
# Length of the axis relative to the fastest, to leave room for its label.
ROOM = 1.1
# Label and number format of each measure of quality.
MEASURES = {
    "sts_spearman": ("Spearman x 100 on STS-B", "{x:.2f}"),
    "cosine_mean": ("mean cosine to float32", "{x:.4f}"),
}
CLOSED, OPEN = "closed loop", "open loop"


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture; name: for its file. svg: its bytes."""

    name: str
    title: str
    svg: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """Latency of the server under one load; label: names the load."""

    per_s: float
    p50_ms: float
    p99_ms: float
    label: str


@dataclass(frozen=True, slots=True)
class Contender:
    """One server on one workload; quality: Spearman on STS-B, or the mean cosine to float32."""

    name: str
    per_s: float
    quality: float


def throughput(lines: Sequence[Line]) -> dict[tuple[str, str], list[Load]]:
    """Return the loads by workload and kind of loop, from the least load to the most.

    A workload that was measured at several commits is shown once for each, with the commit in its name.
    """
    chosen = [line for line in lines if line["case"] in ("serve", "latency")]
    commits: dict[str, set[str]] = {}
    for line in chosen:
        commits.setdefault(line["workload"], set()).add(line["machine"]["commit"])
    found: dict[tuple[str, str], list[Load]] = {}
    for line in chosen:
        name = line["workload"]
        if len(commits[name]) > 1:
            name += f" ({line['machine']['commit']})"
        if line["case"] == "serve":
            kind, per_s, label = CLOSED, line["served_per_s"], f"c{line['clients']}"
        else:
            kind, per_s, label = OPEN, line["per_s"], f"{line['load']:.0%}"
        load = Load(per_s, line["p50_ms"], line["p99_ms"], label)
        found.setdefault((name, kind), []).append(load)
    return {
        key: sorted(loads, key=lambda load: (key[1] == OPEN and load.per_s, load.p50_ms))
        for key, loads in found.items()
    }


def frontier(lines: Sequence[Line]) -> dict[str, list[Contender]]:
    """Return by workload the contenders whose speed and quality are both known.

    The last line counts. Quality is `quality_measure` of all.
    """
    measure = quality_measure(lines)
    qualities = {
        line["contender"]: line[measure] for line in lines if line["case"] == "compare quality"
    }
    found: dict[str, dict[str, Contender]] = {}
    for line in lines:
        if line["case"] == "compare" and line["contender"] in qualities:
            name = line["contender"]
            contender = Contender(name, line["per_s"], qualities[name])
            found.setdefault(line["workload"], {})[name] = contender
    return {workload: list(contenders.values()) for workload, contenders in found.items()}


def quality_measure(lines: Sequence[Line]) -> str:
    """Return the key of the quality to show: Spearman on STS-B if all contenders have it."""
    found = [line for line in lines if line["case"] == "compare quality"]
    return "sts_spearman" if all("sts_spearman" in line for line in found) else "cosine_mean"


def drawn(lines: Sequence[Line]) -> Iterator[Plot]:
    """Yield the plots for which there are lines."""
    with mpl.rc_context(STYLE):
        if loads := throughput(lines):
            title = "Latency at a throughput: the median, and up to the 99th percentile"
            yield Plot("throughput", title, svg(_throughput(loads, title)))
        if workloads := frontier(lines):
            title = "Speed and quality: further up and to the right is better"
            yield Plot("frontier", title, svg(_frontier(workloads, title, quality_measure(lines))))


def _throughput(found: dict[tuple[str, str], list[Load]], title: str) -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for name, _ in found))
    for (name, kind), loads in found.items():
        x, p50 = [load.per_s for load in loads], [load.p50_ms for load in loads]
        colour = COLOURS[names.index(name) % len(COLOURS)]
        above = [max(0.0, load.p99_ms - load.p50_ms) for load in loads]
        axes.errorbar(
            x,
            p50,
            yerr=[[0.0] * len(loads), above],
            color=colour,
            linestyle="-" if kind == CLOSED else "--",
            marker="o" if kind == CLOSED else "^",
            elinewidth=1,
            capsize=3,
            label=f"{name}, {kind}",
        )
        for load in loads:
            axes.annotate(
                load.label,
                (load.per_s, load.p50_ms),
                textcoords="offset points",
                xytext=(7, -14),
                color=colour,
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, ROOM * max(load.per_s for loads in found.values() for load in loads))
    axes.set_xlabel("requests per second, one text each")
    axes.set_ylabel("milliseconds")
    axes.set_title(title)
    axes.legend()
    return figure


def _frontier(found: dict[str, list[Contender]], title: str, measure: str) -> Figure:
    figure = Figure(figsize=(4.5 * max(2, len(found)), 5), layout="constrained")
    figure.suptitle(title)
    names = list(dict.fromkeys(each.name for several in found.values() for each in several))
    several_axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (workload, contenders) in zip(several_axes, found.items(), strict=True):
        for each in contenders:
            place = names.index(each.name)
            axes.plot(
                [each.per_s],
                [each.quality],
                linestyle="",
                marker=MARKS[place % len(MARKS)],
                markersize=9,
                color=COLOURS[place % len(COLOURS)],
                label=each.name,
            )
        axes.set_xlim(0, ROOM * max(each.per_s for each in contenders))
        axes.margins(y=0.1)
        axes.set_title(workload)
        axes.set_xlabel("requests per second")
    # Names stand beside the plot, where near points do not hide them.
    marks = {
        label: mark
        for axes in several_axes
        for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(marks.values()), list(marks), loc="outside right center")
    label, form = MEASURES[measure]
    several_axes[0].set_ylabel(label)
    several_axes[0].yaxis.set_major_formatter(form)
    return figure


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG, without a date or a version."""
    written = io.BytesIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()
