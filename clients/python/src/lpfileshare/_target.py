"""Where a client connects, and how."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from ._version import __version__
from .identity import AgentToken, ConsumerToken, ExternalConsumerId, Identity

StrPath = str | os.PathLike[str]

# The balancer and the health check apply to the addresses of one name. The health of "" is that of the server as a whole, which
# accepts calls until it drains. There is no retryPolicy: it does not read RetryInfo.
_SERVICE_CONFIG = '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}'


@dataclass(frozen=True, repr=False)
class Settings:
    """How a client connects to its servers."""

    addresses: tuple[str, ...]
    credentials: grpc.ChannelCredentials | None  # None: plaintext
    options: tuple[tuple[str, Any], ...]


def make_settings(
    target: str,
    *,
    tls_ca: StrPath | None,
    client_cert: StrPath | None,
    client_key: StrPath | None,
    plaintext: bool,
    credentials: grpc.ChannelCredentials | None,
    user_agent: str,
    options: Sequence[tuple[str, Any]],
) -> Settings:
    """Checks the arguments of a client. Raises ValueError or OSError."""
    addresses = parse_targets(target)
    if (client_cert is None) != (client_key is None):
        raise ValueError("client_cert and client_key must be set together")
    files = tls_ca is not None or client_cert is not None
    if files + plaintext + (credentials is not None) > 1:
        raise ValueError("plaintext, credentials, and tls_ca with client_cert exclude each other")
    if credentials is None and (files or not (plaintext or all(map(is_loopback, addresses)))):
        credentials = grpc.ssl_channel_credentials(_read(tls_ca), _read(client_key), _read(client_cert))
    agent = f"{user_agent} lpfileshare-python/{__version__}".strip()
    defaults: dict[str, Any] = {
        "grpc.primary_user_agent": agent,
        "grpc.service_config": _SERVICE_CONFIG,
        "grpc.enable_retries": 0,
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.http2.max_pings_without_data": 0,  # a silent watch is pinged for as long as it lasts
        # A lost server is tried again soon, because the retry rule has a backoff of its own.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 2_000,
    }
    return Settings(addresses, credentials, (*{**defaults, **dict(options)}.items(),))


def parse_targets(target: str) -> tuple[str, ...]:
    """Splits a list of servers, "a:1,b:2". A target of gRPC's own, such as "ipv4:1.2.3.4:1,1.2.3.5:1", is one element."""
    if target.startswith(("ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:")) or "://" in target:
        return (target,)
    addresses = tuple(a.strip() for a in target.split(","))
    for a in addresses:
        if not a or " " in a or "/" in a:
            raise ValueError(f"{target!r} is not the address of a server; use HOST:PORT, or several with commas between them")
    return addresses


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine, judged by its name alone: loopback, "localhost" or a Unix socket."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    address = address.removeprefix("dns:").removeprefix("///")
    if address.startswith(("ipv4:", "ipv6:")):
        return all(is_loopback(a) for a in address[5:].split(","))
    host = address
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def environment(env: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a client from the environment. overrides take precedence. Raises ValueError."""
    args: dict[str, Any] = {}
    target = env.get("LPFILESHARE_ADDRESS", "")
    if not target and "target" not in overrides:
        raise ValueError("LPFILESHARE_ADDRESS is not set; set it to HOST:PORT")
    args["target"], args["account"] = target, env.get("LPFILESHARE_ACCOUNT", "")
    if overrides.get("identity") is None:
        args["identity"] = _environment_identity(env)
    if not overrides.keys() & {"tls_ca", "client_cert", "client_key", "plaintext", "credentials"}:
        args["plaintext"] = _boolean(env.get("LPFILESHARE_PLAINTEXT", ""))
        for name in ("tls_ca", "client_cert", "client_key"):
            args[name] = env.get("LPFILESHARE_" + name.upper()) or None
    return {**args, **overrides}


def _environment_identity(env: Mapping[str, str]) -> Identity | None:
    kinds = {
        "LPFILESHARE_TOKEN": ConsumerToken,
        "LPFILESHARE_AGENT_TOKEN": AgentToken,
        "LPFILESHARE_EXTERNAL_CONSUMER_ID": ExternalConsumerId,
    }
    found = [name for name in kinds if env.get(name)]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} are set; a call carries exactly one identity")
    return kinds[found[0]](env[found[0]]) if found else None


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no", ""):
        return False
    raise ValueError(f"LPFILESHARE_PLAINTEXT is {text!r}, must be true or false")


def _read(path: StrPath | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as f:
        return f.read()
