"""Addresses as people write them and as Envoy reads them."""

from __future__ import annotations

import pytest

from ortmesh_gateway.addresses import Address, by_family, resolve


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:443", "vision.svc:8100", "unix:/run/a.sock"])
def test_an_address_reads_back_as_it_was_written(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_names_must_be_resolved_and_numbers_not() -> None:
    assert Address.parse("vision.svc:8100").is_name
    assert not any(Address.parse(text).is_name for text in ("10.0.0.1:1", "[::1]:1", "unix:/a"))


def test_envoy_gets_a_pipe_or_a_socket() -> None:
    assert Address.parse("unix:/a").for_envoy() == {"pipe": {"path": "/a"}}
    assert Address.parse("[::1]:5").for_envoy() == {"socket_address": {"address": "::1", "port_value": 5}}


def test_replicas_are_grouped_by_family_in_their_order() -> None:
    found = by_family(["vision=unix:/b", "nlp=localhost:1", "vision=unix:/a"])
    assert {family: [str(each) for each in addresses] for family, addresses in found.items()} == {
        "vision": ["unix:/b", "unix:/a"],
        "nlp": ["localhost:1"],
    }


def test_a_wrong_address_is_named() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        by_family(["vision=nowhere"])


async def test_a_name_to_listen_on_becomes_a_number() -> None:
    assert await resolve(Address.parse("localhost:80")) == Address.parse("127.0.0.1:80")
    for text in ("10.0.0.1:1", "[::1]:1", "unix:/a"):
        assert await resolve(Address.parse(text)) == Address.parse(text)


async def test_a_name_that_nobody_knows_is_an_error_that_says_it() -> None:
    with pytest.raises(OSError, match=r"cannot resolve nowhere\.invalid:80: "):
        await resolve(Address.parse("nowhere.invalid:80"))
