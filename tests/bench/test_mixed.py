"""The pure parts of the bench of mixed lengths."""

from __future__ import annotations

from pathlib import Path

from bench.mixed.__main__ import write
from bench.mixed.items import Item, stacked
from bench.mixed.service import totals

METRICS = """\
# TYPE ortmesh_compute_duration_seconds histogram
ortmesh_compute_duration_seconds_bucket{le="0.1",model="a",version="1"} 2.0
ortmesh_compute_duration_seconds_sum{model="a",version="1"} 0.5
ortmesh_compute_duration_seconds_sum{model="b",version="1"} 7.0
ortmesh_queue_duration_seconds_sum{model="a",reason="busy",version="1"} 3.0
ortmesh_queue_duration_seconds_sum{model="a",reason="free",version="1"} 1.0
ortmesh_queue_duration_seconds_count{model="a",reason="busy",version="1"} 5.0
ortmesh_queue_duration_seconds_count{model="a",reason="free",version="1"} 1.0
ortmesh_batch_size_count{model="a",version="1"} 2.0
ortmesh_batch_size_sum{model="a",version="1"} 6.0
ortmesh_batch_padding_ratio_sum{model="a",version="1"} 0.25
"""


def test_a_batch_is_padded_to_its_longest_text_and_masked() -> None:
    """What the bare session is given is what the service would give it."""
    feeds = stacked([Item("a", (101, 7, 102)), Item("b", (101, 7, 8, 102))])
    assert feeds["input_ids"].tolist() == [[101, 7, 102, 0], [101, 7, 8, 102]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_the_metrics_of_one_model_are_summed_over_their_labels() -> None:
    """Queue time has a series a reason; another model's series do not count."""
    found = totals(METRICS, "a")
    assert (found.compute_seconds, found.queue_seconds, found.items) == (0.5, 4.0, 6.0)
    assert (found.batches, found.rows, found.padding) == (2.0, 6.0, 0.25)
    assert found.since(found).compute_seconds == 0


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    """Each number of threads may be measured on a day of its own."""
    page = tmp_path / "page.md"
    write(page, "## 2 threads", "## 2 threads\n\nold")
    write(page, "## 1 thread", "## 1 thread\n\nfirst")
    write(page, "## 2 threads", "## 2 threads\n\nnew")
    text = page.read_text(encoding="utf-8")
    assert text.index("first") < text.index("new")
    assert "old" not in text
    assert text.startswith("# Texts of mixed lengths")
