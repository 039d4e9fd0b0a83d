"""Settings, identities and secrets. They need no server."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from datetime import UTC, datetime, timedelta

import pytest

import lpfileshare
from lpfileshare import Cancellation, Secret
from lpfileshare._async.identity import BoundIdentity as AsyncBoundIdentity
from lpfileshare._async.io import Operation as AsyncOperation
from lpfileshare._sync.identity import BoundIdentity
from lpfileshare._sync.io import Operation
from lpfileshare._target import environment, is_loopback, make_settings, parse_targets
from lpfileshare.errors import LpFileShareError
from lpfileshare.types import ConsumerSession, FileType


@pytest.mark.parametrize("text", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/s", "dns:///localhost:1", "ipv4:127.0.0.1:1,127.0.0.2:1"])
def test_loopback(text):
    assert is_loopback(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.1:1", "localhost.example.com:1", "[2001:db8::1]:1", "dns:///example.com", "ipv4:127.0.0.1:1,10.0.0.1:1"]
)
def test_not_loopback(text):
    assert not is_loopback(text)


def test_targets():
    assert parse_targets("a:1, b:2") == ("a:1", "b:2")
    assert parse_targets("ipv4:1.2.3.4:1,1.2.3.5:1") == ("ipv4:1.2.3.4:1,1.2.3.5:1",)
    with pytest.raises(ValueError, match="not the address"):
        parse_targets("a:1,")


def settings(target, **args):
    nothing = {
        "tls_ca": None,
        "client_cert": None,
        "client_key": None,
        "plaintext": False,
        "credentials": None,
        "user_agent": "",
        "options": (),
    }
    return make_settings(target, **{**nothing, **args})


def test_tls_is_the_default_except_to_loopback():
    assert settings("example.com:1").credentials is not None
    assert settings("127.0.0.1:1,example.com:1").credentials is not None
    assert settings("127.0.0.1:1").credentials is None
    assert settings("example.com:1", plaintext=True).credentials is None
    with pytest.raises(ValueError, match="together"):
        settings("a:1", client_cert="c.pem")
    with pytest.raises(ValueError, match="exclude"):
        settings("a:1", plaintext=True, tls_ca="ca.pem")


def test_user_agent_has_the_version():
    options = dict(settings("a:1", user_agent="shop/2").options)
    assert options["grpc.primary_user_agent"] == f"shop/2 lpfileshare-python/{lpfileshare.__version__}"


def test_environment():
    args = environment({"LPFILESHARE_ADDRESS": "a:1", "LPFILESHARE_AGENT_TOKEN": "t", "LPFILESHARE_PLAINTEXT": "TRUE"}, {"account": "7"})
    assert (args["target"], args["account"], args["plaintext"]) == ("a:1", "7", True)
    assert isinstance(args["identity"], lpfileshare.AgentToken)
    with pytest.raises(ValueError, match="LPFILESHARE_ADDRESS is not set"):
        environment({}, {})
    with pytest.raises(ValueError, match="exactly one identity"):
        environment({"LPFILESHARE_ADDRESS": "a:1", "LPFILESHARE_TOKEN": "t", "LPFILESHARE_AGENT_TOKEN": "u"}, {})


def test_secrets_do_not_print():
    session = ConsumerSession(Secret("s3cret"), None, Secret("s3cret2"))
    client = lpfileshare.Client("127.0.0.1:1", identity=session)
    metadata = client._bound.metadata(Secret("s3cret"))
    assert "s3cret" not in f"{metadata} {metadata!r}"
    for value in (Secret("s3cret"), session, client, lpfileshare.ConsumerToken("s3cret")):
        assert "s3cret" not in f"{value} {value!r}" + json.dumps(value, default=repr)
    assert copy.deepcopy(session) == session
    for value in (session, client, lpfileshare.ConsumerToken("s3cret")):
        with pytest.raises((TypeError, AttributeError)):
            pickle.dumps(value)


def test_unknown_values_of_enums_are_kept():
    assert (FileType(99), FileType(99).name) == (99, "UNKNOWN_99")


def rejection():
    return LpFileShareError("", reason="TOKEN_INVALID")


def test_concurrent_calls_share_one_renewal():
    calls, waiting = [], threading.Barrier(10)

    def renew(session):
        calls.append(session)
        return ConsumerSession(Secret("new"))

    bound = BoundIdentity(lpfileshare.RenewedSession(ConsumerSession(Secret("old"), None, Secret("r"))), renew)
    results = []

    def call():
        op = Operation("op", 10)
        token = bound.token(op)
        waiting.wait()
        results.append((bound.renew(op, rejection(), token), bound.token(op)))

    threads = [threading.Thread(target=call) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(calls) == 1
    assert results == [(True, Secret("new"))] * 10


def test_concurrent_tasks_share_one_renewal_even_if_one_is_cancelled():
    async def run():
        calls, go = [], asyncio.Event()

        async def renew(session):
            calls.append(session)
            await go.wait()
            return ConsumerSession(Secret("new"))

        bound = AsyncBoundIdentity(lpfileshare.RenewedSession(ConsumerSession(Secret("old"), None, Secret("r"))), renew)
        op = AsyncOperation("op", None)
        tasks = [asyncio.create_task(bound.renew(op, rejection(), Secret("old"))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(*tasks[1:]) == [True, True]
        assert tasks[0].cancelled()
        assert len(calls) == 1

    asyncio.run(run())


def test_session_is_renewed_before_it_expires_and_used_if_that_fails():
    def fail(session):
        raise LpFileShareError("no")

    soon = ConsumerSession(Secret("old"), datetime.now(UTC) + timedelta(seconds=30), Secret("r"))
    assert BoundIdentity(lpfileshare.RenewedSession(soon), lambda s: ConsumerSession(Secret("new"))).token(Operation("op", None)) == Secret(
        "new"
    )
    assert BoundIdentity(lpfileshare.RenewedSession(soon), fail).token(Operation("op", None)) == Secret("old")
    past = ConsumerSession(Secret("old"), datetime.now(UTC) - timedelta(seconds=30), Secret("r"))
    with pytest.raises(LpFileShareError, match="no"):
        BoundIdentity(lpfileshare.RenewedSession(past), fail).token(Operation("op", None))


def test_function_as_a_source_is_asked_for_another_token():
    def source(rejected):
        return "two" if rejected == "one" else "one"

    bound = BoundIdentity(lpfileshare.ConsumerToken(source), lambda s: s)
    op = Operation("op", None)
    token = bound.token(op)
    assert token == Secret("one")
    assert bound.renew(op, rejection(), token)
    assert not bound.renew(op, LpFileShareError("", reason="NOT_ALLOWED"), token)


def test_cancellation_ends_a_wait():
    cancellation = Cancellation()
    op = Operation("op", None, cancellation)
    threading.Thread(target=cancellation.cancel).start()
    with pytest.raises(lpfileshare.Cancelled):
        op.sleep(60)
    called = []
    with cancellation.on_cancel(lambda: called.append(1)):
        assert called == [1]


def test_timeout_ends_a_wait():
    with pytest.raises(lpfileshare.DeadlineExceeded):
        Operation("op", 0.01).sleep(60)
