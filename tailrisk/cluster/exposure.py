"""Whether anybody who reaches a Ray cluster can use it; each answer is a warning, or '' where there is none to give.

Ray runs whatever code it is sent. Where it asks for no token, its ports are open doors to all who can connect to them:
that is how the ShadowRay attacks got in (CVE-2023-48022). Loopback keeps others out; any other address is for a network
of one's own, or for a cluster that asks for a token.
"""

from __future__ import annotations

import ipaddress
import json
import urllib.request
from typing import Any
from urllib.parse import urlsplit

PROBE_S = 5.0
_WHY = "runs code for everybody who reaches it (ShadowRay, CVE-2023-48022)"
_REMEDY = "start it with RAY_AUTH_MODE=token and a token (ray get-auth-token --generate), or close its ports to others"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; False for names that would have to be looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def of_job_server(address: str) -> str:
    """For a job server (http://HOST:8265), asked without a token; '' also where nothing answers."""
    if is_loopback(urlsplit(address).hostname or ""):
        return ""
    try:
        # The address was given by the user, and is http or https.
        with urllib.request.urlopen(f"{address}/api/version", timeout=PROBE_S) as answer:
            version = json.loads(answer.read(10_000)).get("ray_version")
    except (OSError, ValueError, AttributeError):
        return ""
    return f"{address}: this Ray asks for no token and {_WHY}; {_REMEDY}" if version else ""


def of_joined() -> str:
    """For the cluster that this process has joined; needs a session."""
    import ray
    import ray._raylet as native

    library: Any = native
    if library.get_authentication_mode() == library.AuthenticationMode.TOKEN:
        return ""
    addresses = [n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]]
    outside = sorted(a for a in addresses if not is_loopback(a))
    return (
        f"cluster.address: the Ray at {outside[0]} let us in without a token and {_WHY}; {_REMEDY}"
        if outside
        else ""
    )


def of_address(address: str, mode: str | None) -> str:
    """For a cluster's address that is only named (host:port, or http://...), ``mode`` being RAY_AUTH_MODE."""
    if address.startswith(("http://", "https://")):
        return of_job_server(address.rstrip("/"))
    host, _, port = address.rpartition(":")
    if not port.isdigit() or is_loopback(host) or (mode or "").lower() == "token":
        return ""
    return f"audits join {address} without a token: if it lets them in, it {_WHY}; {_REMEDY}"
