"""What was seen, as Markdown and as a plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from bench.memory.drive import Callers
from bench.memory.growth import ALLOWED, Growth, Sample, Watched

HEAD = """# Memory under shapes that never repeat

`python -m bench.memory --minutes {minutes:g}{write}`: {cores} cores, Python {python}, ONNX Runtime {runtime}. A mesh of
all default models answers two callers without a pause. Twelve kinds of requests take turns, each in sizes that fill
their range and never repeat: pictures of 24 to 2,600 pixels a side to Classify, Embed, Detect and ReadText; texts of 1
to 6,000 characters to Embed, FindEntities and DetectLanguage; 0.05 to 30 s of sound to Recognize and DetectSpeech;
tensors of many rows and lengths through the Open Inference Protocol. What is held is read every {every:g} s.

Between requests memory rises and falls: arenas of ONNX Runtime grow with a large picture and are given back when an
executor has had nothing to do, or only small ones, for some seconds. So growth is looked for at rest, when nobody has
asked for {rest:g} s: at minute {warm:g}, some times after it, and at the end.

Asked for: after minute {warm:g} no process's memory at rest grows by {allowed:.0%}, by the last rest against the first
and by the trend of all (the median of the slopes between any two); and under load the second half of the time is not
above the first by {allowed:.0%} and what two standard errors of {window:g}-minute averages can explain."""
POINT_MINUTES = 1 / 6
"""One point of the plot is the average of ten seconds."""


def table(
    growths: Sequence[Growth], callers: Callers, run: Watched, *, minutes: float, every: float, rest: float, write: bool
) -> Iterable[str]:
    """Markdown."""
    yield HEAD.format(
        minutes=minutes,
        warm=run.warm,
        window=run.window,
        every=every,
        rest=rest,
        write=" --write" if write else "",
        cores=os.cpu_count(),
        python=platform.python_version(),
        runtime=version("onnxruntime"),
        allowed=ALLOWED,
    )
    yield ""
    asked = ", ".join(f"{count:,} {method}" for method, count in sorted(callers.answered.items()))
    yield f"{callers.answered.total():,} answers ({asked}); {len(callers.failed)} failed."
    yield ""
    titles = ("at the end", "grown", "trend", "under load", "later", "grown", "most", "flat")
    yield f"| process, MB | at rest, minute {run.warm:g} | {' | '.join(titles)} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for each in growths:
        rested = [_mb(each.rest), _mb(each.last_rest), f"{each.rest_grown:+.1%}", f"{each.rest_trended:+.1%}"]
        load = [
            _mb(each.average),
            _mb(each.last_average),
            f"{each.grown:+.1%} ± {each.uncertainty:.1%}",
            _mb(each.most),
        ]
        yield f"| {each.name} | {' | '.join([*rested, *load, 'yes' if each.flat else 'NO'])} |"
    yield ""
    minutes_of = ", ".join(f"{rest.minute:.1f}" for rest in run.rests)
    yield f"All rests, at minutes {minutes_of}, MB, and how much of it is private (heaps, arenas, stacks):"
    yield ""
    for name in run.rests[0].held:
        rests = (rest.held[name] for rest in run.rests)
        yield f"- {name}: {', '.join(f'{_mb(each.resident)} ({_mb(each.private)})' for each in rests)}"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f}"


def draw(samples: Sequence[Sample], path: Path) -> None:
    """The resident memory of each process over the run."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ortmesh"
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(9, 4))
    for name in samples[0].held:
        minutes, sizes = _thinned(samples, name)
        panel.plot(minutes, sizes, linewidth=1.2, label=name)
    panel.set_xlabel("minutes")
    panel.set_ylabel("resident memory, MB")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _thinned(samples: Sequence[Sample], name: str) -> tuple[list[float], list[float]]:
    points: dict[int, list[Sample]] = {}
    for sample in samples:
        points.setdefault(int(sample.minute / POINT_MINUTES), []).append(sample)
    minutes = [fmean(sample.minute for sample in each) for each in points.values()]
    return minutes, [fmean(sample.held[name].resident for sample in each) / 1e6 for each in points.values()]
