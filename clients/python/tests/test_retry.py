"""The retry rule, and the conversion of statuses."""

from __future__ import annotations

import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import lpfileshare
from lpfileshare._retry import Pacer, Verdict, judge
from lpfileshare.errors import status_error

Code = grpc.StatusCode


def trailer(*details):
    packed = []
    for d in details:
        any_detail = Any()
        any_detail.Pack(d)
        packed.append(any_detail)
    return [("grpc-status-details-bin", status_pb2.Status(details=packed).SerializeToString())]


def info(reason, domain="lpfileshare"):
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"maxBytes": "3"})


def retry_info(seconds):
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds))


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        (Code.RESOURCE_EXHAUSTED, [info("TOO_MANY_UPLOADS"), retry_info(1)], Verdict.REPEAT),
        (Code.ABORTED, [info("UPLOAD_TAKEN_OVER")], Verdict.FINAL),
        (Code.UNAVAILABLE, [info("ANYTHING_NEW")], Verdict.FINAL),
        (Code.UNAVAILABLE, [info("ANYTHING", "example.com")], Verdict.REPEAT),
        (Code.UNAVAILABLE, [], Verdict.REPEAT),
        (Code.CANCELLED, [], Verdict.REPEAT),
        (Code.UNKNOWN, [], Verdict.REPEAT),
        (Code.INTERNAL, [], Verdict.REPEAT_ONCE),
        (Code.RESOURCE_EXHAUSTED, [], Verdict.FINAL),
        (Code.UNIMPLEMENTED, [], Verdict.FINAL),
        (Code.DEADLINE_EXCEEDED, [], Verdict.FINAL),
    ],
)
def test_judge(code, details, verdict):
    assert judge(status_error(code, "m", trailer(*details))) is verdict


def test_error_has_the_details_of_the_status():
    bad = error_details_pb2.BadRequest(field_violations=[{"field": "spec.caption", "description": "is too long"}])
    e = status_error(Code.INVALID_ARGUMENT, "m", trailer(info("INVALID_FIELD"), bad))
    assert (e.code, e.reason, e.metadata) == (Code.INVALID_ARGUMENT, "INVALID_FIELD", {"maxBytes": "3"})
    assert e.violations == (lpfileshare.FieldViolation("spec.caption", "is too long"),)
    assert str(e) == "m: spec.caption: is too long [INVALID_FIELD]. Correct the named fields and retry."


def test_error_class_says_what_happened():
    assert type(status_error(Code.OUT_OF_RANGE, "", trailer(info("WATCH_RESET")))) is lpfileshare.WatchResetError
    assert isinstance(status_error(Code.DEADLINE_EXCEEDED, "", ()), TimeoutError)
    assert type(status_error(Code.UNAVAILABLE, "", [("grpc-status-details-bin", b"\xff")])) is lpfileshare.ConnectionLost


def test_error_can_be_pickled():
    e = status_error(Code.DEADLINE_EXCEEDED, "m", ())
    e.attempts, e.op = 3, "stat"
    copy = pickle.loads(pickle.dumps(e))
    assert (type(copy), str(copy), copy.attempts) == (type(e), str(e), 3)


def lost(code=Code.UNAVAILABLE):
    return status_error(code, "broke", ())


def test_pacer_waits_as_long_as_the_server_asks():
    e = status_error(Code.UNAVAILABLE, "", trailer(info("SERVER_DRAINING"), retry_info(30)))
    assert 30 <= Pacer("op", 120).delay(e) <= 36


def test_pacer_backs_off_and_progress_resets_it():
    pacer = Pacer("op", 120)
    assert 0.1 <= pacer.delay(lost()) <= 0.3
    for _ in range(10):
        pacer.delay(lost())
    assert 2.5 <= pacer.delay(lost()) <= 7.5
    pacer.progress()
    assert pacer.delay(lost()) <= 0.3


@pytest.mark.parametrize(
    ("pacer", "why"),
    [
        (Pacer("op", -1), "retries are disabled"),
        (Pacer("op", 0.01), "the next attempt would begin more than 0.01 s"),
    ],
)
def test_pacer_ends(pacer, why):
    with pytest.raises(lpfileshare.ConnectionLost) as caught:
        pacer.delay(lost())
    assert why in caught.value.not_repeated


def test_pacer_limits_attempts():
    pacer = Pacer("op", 120, max_attempts=2)
    pacer.attempts = 2
    with pytest.raises(lpfileshare.ConnectionLost, match="the limit is 2 attempts"):
        pacer.delay(lost())


def test_pacer_tries_internal_twice():
    pacer = Pacer("op", 120)
    pacer.delay(lost(Code.INTERNAL))
    with pytest.raises(lpfileshare.ConnectionLost):
        pacer.delay(lost(Code.INTERNAL))


def test_pacer_reports_the_obstacle_only_of_repeatable_errors():
    with pytest.raises(lpfileshare.ConnectionLost, match="not repeated: no source"):
        Pacer("op", 120).delay(lost(), obstacle="no source")
    final = status_error(Code.NOT_FOUND, "", trailer(info("FILE_NOT_FOUND")))
    with pytest.raises(lpfileshare.LpFileShareError) as caught:
        Pacer("op", 120).delay(final, obstacle="no source")
    assert caught.value.not_repeated == ""


def test_pacer_repeats_at_once_with_a_renewed_token():
    rejected = status_error(Code.UNAUTHENTICATED, "", trailer(info("TOKEN_INVALID")))
    pacer = Pacer("op", -1)
    assert pacer.delay(rejected, renewed=True) == 0
    assert pacer.renewed
