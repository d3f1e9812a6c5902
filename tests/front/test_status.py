"""Errors as statuses: the right code, all details, and never too much for a trailer."""

from __future__ import annotations

import inspect

import pytest
from google.rpc import code_pb2, error_details_pb2

from ortmesh import errors
from ortmesh.errors import BadInput, NotFound, OrtmeshError, Overloaded, Violation
from ortmesh.front.status import status_of

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OrtmeshError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_canonical_code_and_a_reason(kind: type[OrtmeshError]) -> None:
    error = kind("field", "text") if issubclass(kind, (BadInput, errors.OutOfRange)) else kind("text")
    status = status_of(error)
    assert code_pb2.Code.Name(status.code) == kind.code
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (kind.reason, "ortmesh")


def test_a_resource_is_named() -> None:
    status = status_of(NotFound("no model x", resource=("model", "x")))
    resource = error_details_pb2.ResourceInfo()
    assert status.details[1].Unpack(resource)
    assert (resource.resource_type, resource.resource_name) == ("model", "x")


def test_the_time_to_retry_is_kept_to_the_nanosecond() -> None:
    status = status_of(Overloaded("full", retry_after_seconds=0.25))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 0.25


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), MemoryError("secret")])
def test_the_text_of_a_bug_is_kept_back(error: Exception) -> None:
    status = status_of(error)
    assert status.code == code_pb2.INTERNAL
    assert b"secret" not in status.SerializeToString()


def test_a_status_fits_into_trailers_whatever_was_wrong() -> None:
    """Clients drop trailers over 8 KiB, base64 included, and with them the code."""
    violations = [Violation(f"texts[{number}]" * 50, "é" * 5000) for number in range(256)]
    error = OrtmeshError("é" * 10_000, violations=violations, resource=("model", "m" * 9999))
    assert len(status_of(error).SerializeToString()) < 5_500


def test_text_that_utf8_cannot_carry_is_replaced() -> None:
    assert status_of(BadInput("texts[0]", "lone \ud800")).message == "texts[0]: lone ?"
