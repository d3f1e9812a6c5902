"""`python -m bench.batching`: the policies on the simulated devices, as a table and as a plot."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from bench.batching.devices import Device, devices
from bench.batching.simulate import CONTESTANTS, Outcome, simulate

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "bench" / "results" / "batching.md"
PLOT = ROOT / "docs" / "batching.svg"
LOADS = (0.3, 0.5, 0.7, 0.85, 0.95, 1.1, 1.3)
IN_TABLE = (0.7, 0.95, 1.3)
KINDS = ("poisson", "bursty")

HEAD = """# Policies of batching, simulated

`python -m bench.batching --items {items} --write`: one executor, the product's own pile, deterministic arrivals. Load
is the share of the throughput that the best grouping of a backlog would reach. A cell: share answered within the
deadline · p99 of those that ran, ms · share of the computed cells that was padding."""

Results = dict[tuple[str, str, str, float], Outcome]


def main() -> None:
    """Runs every combination; some three minutes with 4,000 items."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=__doc__)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} and {PLOT.name}")
    chosen = parser.parse_args()
    results = run(chosen.items)
    text = "\n".join(table(results, chosen.items))
    print(text)
    if chosen.write:
        TABLE.write_text(text + "\n", encoding="utf-8")
        draw(results, PLOT)


def run(items: int) -> Results:
    """The outcome by device, kind of arrivals, policy and load."""
    return {
        (device.name, kind, contestant.name, load): simulate(device, contestant, kind, load, count=items, seed=3)
        for device in devices().values()
        for kind in KINDS
        for load in LOADS
        for contestant in CONTESTANTS
    }


def table(results: Results, items: int) -> Iterable[str]:
    """Markdown."""
    yield HEAD.format(items=items)
    for device in devices().values():
        yield ""
        yield f"## {device.name}: {device.about} (deadline {device.deadline * 1000:g} ms)"
        yield ""
        yield f"| arrivals, load | {' | '.join(each.name for each in CONTESTANTS)} |"
        yield "|---" * (1 + len(CONTESTANTS)) + "|"
        for kind in KINDS:
            for load in IN_TABLE:
                cells = (_cell(results[device.name, kind, each.name, load]) for each in CONTESTANTS)
                yield f"| {kind}, {load} | {' | '.join(cells)} |"


def _cell(outcome: Outcome) -> str:
    return f"{outcome.goodput:.2f} · {1000 * outcome.percentile(99):.0f} · {outcome.waste:.2f}"


def draw(results: Results, path: Path) -> None:
    """Goodput over load, a panel a device, with Poisson arrivals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ortmesh"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(devices()), figsize=(12, 3.6), sharey=True)
    for panel, device in zip(panels, devices().values(), strict=True):
        _panel(panel, device, results)
    panels[0].set_ylabel("answered in time")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=len(CONTESTANTS), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def _panel(panel: object, device: Device, results: Results) -> None:
    for contestant in CONTESTANTS:
        shares = [results[device.name, "poisson", contestant.name, load].goodput for load in LOADS]
        width = 2.5 if contestant is CONTESTANTS[-1] else 1.2
        panel.plot(LOADS, shares, marker="o", markersize=3, linewidth=width, label=contestant.name)  # type: ignore[attr-defined]
    panel.set_title(device.name)  # type: ignore[attr-defined]
    panel.set_xlabel("load, of the best grouping's throughput")  # type: ignore[attr-defined]
    panel.set_ylim(0, 1.05)  # type: ignore[attr-defined]
    panel.grid(alpha=0.3)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
