"""Memory by the number of documents, as a plot in the style of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report.plots import COLOURS, MARKS, STYLE, svg


@dataclass(frozen=True, slots=True)
class Curve:
    """GB of memory, with room, at numbers of documents."""

    name: str
    documents: Sequence[float]
    gb: Sequence[float]


def drawn(curves: Sequence[Curve]) -> bytes:
    """Return the curves as SVG, each to where it ends."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.add_subplot()
        for place, curve in enumerate(curves):
            axes.plot(
                curve.documents,
                curve.gb,
                color=COLOURS[place],
                marker=MARKS[place],
                markevery=10,
                label=curve.name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("documents of one vector of 512 numbers")
        axes.set_ylabel("GB of memory, with room")
        axes.legend()
        return svg(figure)
