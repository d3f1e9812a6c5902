"""The picture of docs/batching.md: what a row costs in batches, and how many callers each policy answers in time."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.batching.devices import Device, devices
from bench.batching.simulate import BY_COST, BY_HAND, CONTESTANTS, LIMITS

LOADS = (0.3, 0.5, 0.7, 0.85, 0.95, 1.1, 1.3)
HAND_LOAD = 0.95
ARRIVALS = "poisson"
TITLES = {"cpu": "CPU", "tensorrt": "GPU"}
"""The devices that are drawn."""
CURVES = (
    ("cpu", 16, "tab:blue", "--"),
    ("cpu", 128, "tab:blue", "-"),
    ("tensorrt", 16, "tab:red", "--"),
    ("tensorrt", 128, "tab:red", "-"),
)
"""Device, tokens, colour and line of what is drawn of costs."""
STYLE = {"svg.hashsalt": "ortmesh", "svg.fonttype": "none", "font.size": 9, "font.sans-serif": ["DejaVu Sans"]}
TICKS = [1, 2, 4, 8, 16, 32, 64]
COLOURS = ("tab:gray", "tab:orange", "tab:purple", "tab:green")


def shows(device: str, arrivals: str) -> bool:
    """True for what is drawn over all loads."""
    return device in TITLES and arrivals == ARRIVALS


def draw(shares: Mapping[tuple[str, str, str, float], float], path: Path) -> None:
    """An SVG; `shares` are those answered in time by device, arrivals, policy and load. Needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(STYLE)
    from matplotlib import pyplot

    figure, ((costs, hand), panels) = pyplot.subplots(2, 2, figsize=(9.5, 7))
    _costs(costs)
    _by_hand(hand, shares)
    for panel, name in zip(panels, TITLES, strict=True):
        for contestant, colour in zip(CONTESTANTS, COLOURS, strict=True):
            line = [shares[name, ARRIVALS, contestant.name, load] for load in LOADS]
            width = 2.5 if contestant is BY_COST else 1.2
            panel.plot(LOADS, line, marker="o", markersize=3, linewidth=width, color=colour, label=contestant.name)
        panel.set(title=f"{TITLES[name]}: answered in time", xlabel="load (1 is all that the device can do)")
        panel.set_ylim(0, 1.05)
        panel.grid(alpha=0.3)
    panels[0].legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text(compact(drawn.getvalue()), encoding="utf-8")


def compact(svg: str) -> str:
    """A tenth of a point is enough in shapes, and so is a line for each."""
    without = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    tags = re.sub(r"<[^>]*>", lambda tag: " ".join(re.sub(r"(\d\.\d)\d+", r"\1", tag[0]).split()), without)
    return re.sub(r"\n\s*", "\n", tags)


def _by_hand(panel: Any, shares: Mapping[tuple[str, str, str, float], float]) -> None:
    """What the largest batch does that somebody sets, beside what comes of setting none."""
    for name, colour in (("cpu", "tab:blue"), ("tensorrt", "tab:red")):
        line = [shares[name, ARRIVALS, each.name, HAND_LOAD] for each in BY_HAND["sorted by size"]]
        none = shares[name, ARRIVALS, BY_COST.name, HAND_LOAD]
        panel.plot(LIMITS, line, marker="o", markersize=3, color=colour, label=f"{TITLES[name]}, sorted")
        panel.axhline(none, color=colour, linestyle=":", label=f"{TITLES[name]}, by cost")
    panel.set(
        title=f"answered in time at load {HAND_LOAD}",
        xlabel="largest batch that somebody sets; by cost there is none to set",
        xscale="log",
    )
    panel.set_xticks(TICKS, labels=map(str, TICKS))
    panel.minorticks_off()
    panel.set_ylim(0, 1.05)
    panel.grid(alpha=0.3)
    panel.legend(loc="lower center", fontsize=8)


def _costs(panel: Any) -> None:
    """What a row costs in a batch, relative to a row alone, with the best batch of each curve."""
    for name, tokens, colour, style in CURVES:
        relative = _relative(devices()[name], tokens)
        best = min(range(len(relative)), key=relative.__getitem__)
        label = f"{TITLES[name]}, {tokens} tokens: best {best + 1}"
        panel.plot(range(1, len(relative) + 1), relative, color=colour, linestyle=style, label=label)
        panel.plot([best + 1], [relative[best]], marker="o", color=colour)
    panel.set(title="what an item costs in a batch", xlabel="batch size", xscale="log")
    panel.set_ylabel("of its cost alone")
    panel.set_xticks(TICKS, labels=map(str, TICKS))
    panel.minorticks_off()
    panel.set_ylim(0, 1.1)
    panel.grid(alpha=0.3)
    panel.legend(loc="center right", fontsize=8)


def _relative(device: Device, tokens: int) -> list[float]:
    alone = device.truth.seconds(1, tokens)
    return [device.truth.seconds(rows, tokens) / rows / alone for rows in range(1, device.truth.max_rows + 1)]
