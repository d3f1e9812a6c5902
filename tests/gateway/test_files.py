"""The routes on disk: taken by Envoy after a rename, and reported when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortmesh_gateway.files import RouteFile, RoutesRejected
from ortmesh_gateway.routes import route_configuration
from tests.gateway.backend import Backend, model
from tests.gateway.conftest import Caller, Mesh


async def test_a_model_that_comes_is_served_without_a_restart(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        pid = caller.proxy.envoy_pid
        nlp.tell(*nlp.models, model("e5-small", "nlp"))
        await caller.until_known("e5-small", "minilm")
        assert (await caller.infer("e5-small")).model_version == "nlp"
        assert caller.proxy.envoy_pid == pid


async def test_a_model_that_goes_is_not_found(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        nlp.tell(model("e5-small", "nlp"))
        await caller.until_known("e5-small")
        with pytest.raises(Exception, match="the mesh has no model 'minilm'"):
            await caller.infer("minilm")


async def test_routes_that_envoy_rejects_are_reported_and_the_old_ones_stay(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        routes, path = _route_file(caller)
        good = path.read_text()
        bad = route_configuration({"minilm": "no-such-cluster"}, ["nlp"])
        bad["virtual_hosts"][0]["domains"] = ["*", "*"]
        with pytest.raises(RoutesRejected, match="keeps the old ones"):
            await routes.publish(bad)
        assert path.read_text() == good, "an Envoy that starts anew reads the good one"
        assert (await caller.infer("minilm")).model_version == "nlp"


async def test_the_same_routes_are_not_written_twice(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        routes, path = _route_file(caller)
        before = path.stat().st_ino
        assert not await routes.publish(route_configuration({"minilm": "nlp"}, ["nlp"]))
        assert path.stat().st_ino == before


def _route_file(caller: Caller) -> tuple[RouteFile, Path]:
    routes = caller.gateway.routes
    return routes, routes.path
