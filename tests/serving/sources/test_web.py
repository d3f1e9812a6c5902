"""Addresses: single files, archives, folders, and downloads that break off."""

from __future__ import annotations

import pytest

from ortmesh.serving.cards import read_card
from ortmesh.serving.faults import (
    SourceMissing,
    SourceUnreachable,
)
from ortmesh.serving.fetch import Step, pull
from ortmesh.serving.store import Store
from tests.serving.stand_in import MODEL, StandIn, card, closed_port, content, sum_of, tarred, zipped


def test_single_file_of_an_address_is_the_model(web: StandIn, store: Store) -> None:
    web.files["/v1/model.onnx"] = MODEL
    steps: list[Step] = []
    folder = pull(card({"uri": f"{web.url}/v1/model.onnx", "sha256": sum_of(MODEL)}), store, steps.append)
    assert content(folder) == {"model.onnx": MODEL}
    assert read_card(folder / "card.yaml").files == {"model.onnx": sum_of(MODEL)}
    assert steps[0] == Step("downloading", "model.onnx", 0, len(MODEL))
    assert Step("downloading", "model.onnx", len(MODEL), len(MODEL)) in steps


def test_single_file_may_get_another_name(web: StandIn, store: Store) -> None:
    web.files["/download?id=7"] = MODEL
    source = {"uri": f"{web.url}/download?id=7", "files": {"model.onnx": sum_of(MODEL)}}
    assert content(pull(card(source), store)) == {"model.onnx": MODEL}


@pytest.mark.parametrize(("name", "pack"), [("w.zip", zipped), ("w.tar.gz", tarred)])
def test_archive_of_an_address_gives_its_listed_members(name: str, pack: object, web: StandIn, store: Store) -> None:
    web.files[f"/{name}"] = pack({"a/model.onnx": MODEL, "a/README": b""})  # type: ignore[operator]
    source = {"uri": f"{web.url}/{name}", "files": {"a/model.onnx": sum_of(MODEL)}}
    assert content(pull(card(source), store)) == {"model.onnx": MODEL}


def test_folder_of_an_address_gives_each_listed_file_where_the_card_wants_it(web: StandIn, store: Store) -> None:
    web.files |= {"/v1/onnx/model.onnx": MODEL, "/v1/onnx/model.onnx.data": b"d", "/v1/vocab.txt": b"v"}
    files = {"onnx/model.onnx": sum_of(MODEL), "onnx/model.onnx.data": sum_of(b"d"), "vocab.txt": sum_of(b"v")}
    kept = {"onnx/model.onnx": None, "onnx/model.onnx.data": None, "vocab.txt": None}
    folder = pull(card({"uri": f"{web.url}/v1/", "files": files}, files=kept, graph="onnx/model.onnx"), store)
    assert content(folder) == {"onnx/model.onnx": MODEL, "onnx/model.onnx.data": b"d", "vocab.txt": b"v"}


def test_download_that_breaks_off_goes_on_where_it_was(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    web.broken["/model.onnx"] = [300_000, 300_000]
    folder = pull(card({"uri": f"{web.url}/model.onnx", "sha256": sum_of(MODEL)}), store)
    assert content(folder) == {"model.onnx": MODEL}
    first, *later = web.ranges("/model.onnx")
    assert first is None
    assert [offset(wanted) for wanted in later] == [300_000, 600_000]


def offset(wanted: str | None) -> int:
    """Where a Range header begins."""
    return int(str(wanted).removeprefix("bytes=").rstrip("-"))


def test_later_pull_goes_on_where_an_earlier_one_gave_up(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    web.broken["/model.onnx"] = [200_000, 0, 0, 0, 0]
    source = {"uri": f"{web.url}/model.onnx", "sha256": sum_of(MODEL)}
    with pytest.raises(SourceUnreachable, match=r"model\.onnx cannot be reached"):
        pull(card(source), store)
    assert store.cards() == []
    assert content(pull(card(source), store)) == {"model.onnx": MODEL}
    assert offset(web.ranges("/model.onnx")[-1]) == 200_000


def test_file_that_changed_since_it_broke_off_is_downloaded_anew(web: StandIn, store: Store) -> None:
    """Half of one file and half of another would be neither."""
    web.files["/model.onnx"] = MODEL
    web.broken["/model.onnx"] = [200_000, 0, 0, 0, 0]
    with pytest.raises(SourceUnreachable):
        pull(card({"uri": f"{web.url}/model.onnx"}), store)
    web.files["/model.onnx"] = MODEL[::-1]
    assert content(pull(card({"uri": f"{web.url}/model.onnx"}), store)) == {"model.onnx": MODEL[::-1]}


def test_side_that_is_busy_is_asked_again(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    web.refused["/model.onnx"] = [503, 429]
    pull(card({"uri": f"{web.url}/model.onnx"}), store)
    assert len(web.ranges("/model.onnx")) == 3


def test_file_that_does_not_exist_is_not_asked_for_again(web: StandIn, store: Store) -> None:
    with pytest.raises(SourceMissing, match="404"):
        pull(card({"uri": f"{web.url}/model.onnx"}), store)
    assert len(web.ranges("/model.onnx")) == 1


def test_errors_do_not_show_the_secrets_of_an_address(web: StandIn, store: Store) -> None:
    address = web.url.replace("//", "//user:secret@") + "/model.onnx?token=secret"
    with pytest.raises(SourceMissing) as error:
        pull(card({"uri": address}), store)
    assert "secret" not in str(error.value)


def test_side_that_cannot_be_reached_is_said_so(web: StandIn, store: Store) -> None:
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        pull(card({"uri": f"{closed_port()}/model.onnx"}), store)
