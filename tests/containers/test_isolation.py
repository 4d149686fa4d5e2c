"""What the layout of docker-compose.yml promises, asked of running containers."""

from __future__ import annotations

import json

import pytest

from tests.containers.deployment import EDGES, SERVICES, Deployment
from tests.containers.probes import CONFINEMENT, CONNECT

INSIDE = {"user-domain": 8444, **dict.fromkeys(EDGES, 8445)}


@pytest.mark.parametrize("service", INSIDE)
def test_the_cloud_can_neither_resolve_nor_reach_what_stands_at_a_site(deployment: Deployment, service: str) -> None:
    port = str(INSIDE[service])
    neighbour = "edge-1" if service == "user-domain" else "user-domain"
    address = deployment.address_of(service)
    assert deployment.python(neighbour, CONNECT, service, port) == "connected", "the probe itself must work"
    assert deployment.python(neighbour, CONNECT, address, port) == "connected", "the probe itself must work"
    assert deployment.python("cloud", CONNECT, service, port) == "unresolved"
    assert deployment.python("cloud", CONNECT, address, port) == "unreachable"


def test_the_gateway_lets_nothing_in(deployment: Deployment) -> None:
    assert deployment.python("user-domain", CONNECT, "cloud", "8443") == "connected", "it is the way out"
    assert deployment.python("cloud", CONNECT, "gateway", "8443") == "refused"
    assert deployment.python("cloud", CONNECT, deployment.address_of("gateway"), "8443") == "unreachable"
    routes = "print(open('/proc/sys/net/ipv4/ip_forward').read().strip())"
    assert deployment.python("gateway", routes) == "0"


@pytest.mark.parametrize("service", INSIDE)
def test_a_site_reaches_the_cloud_only_through_its_gateway(deployment: Deployment, service: str) -> None:
    cloud = deployment.container("cloud").attrs["NetworkSettings"]["Networks"]
    ((_, network),) = cloud.items()
    assert deployment.python(service, CONNECT, "cloud", "8443") == "connected"
    assert deployment.python(service, CONNECT, network["IPAddress"], "8443") == "unreachable"
    assert deployment.python(service, CONNECT, "192.0.2.1", "443") == "unreachable"


def test_only_the_cloud_publishes_a_port_and_only_on_this_machine(deployment: Deployment) -> None:
    published = [
        (service, binding["HostIp"])
        for service in SERVICES
        for bindings in deployment.container(service).attrs["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert published == [("cloud", "127.0.0.1")]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_nobody_and_can_write_only_where_it_must(deployment: Deployment, service: str) -> None:
    assert json.loads(deployment.python(service, CONFINEMENT)) == {
        "uid": 10001,
        "writes": [] if service == "gateway" else ["/identity"],  # keys are made there, and certificates renewed
        "capabilities": 0,
        "no_new_privileges": True,
    }
    assert deployment.container(service).attrs["HostConfig"]["ReadonlyRootfs"]


def test_each_service_has_its_own_identity_and_the_cloud_alone_the_authority(deployment: Deployment) -> None:
    named = {}
    for service in SERVICES:
        mounts = deployment.container(service).attrs["Mounts"]
        volumes = {m["Name"].partition("_")[2] for m in mounts if m["Type"] == "volume"}
        assert ("authority" in volumes) == (service == "cloud")
        named[service] = {name for name in volumes if name.startswith("identity-")}
    assert named == {
        "cloud": {"identity-cloud"},
        "gateway": set(),
        "user-domain": {"identity-site-1"},
        **{edge: {f"identity-{edge}"} for edge in EDGES},
    }


def test_private_images_lie_in_a_volume_that_only_the_user_domain_has(deployment: Deployment) -> None:
    holders = {
        service
        for service in SERVICES
        for mount in deployment.container(service).attrs["Mounts"]
        if mount.get("Name", "").partition("_")[2] in ("site-1", "site-1-data")
    }
    assert holders == {"user-domain"}


def test_an_edge_runs_without_torch(deployment: Deployment) -> None:
    find = "import importlib.util as u; print(*(bool(u.find_spec(n)) for n in ('onnxruntime', 'torch', 'ultralytics')))"
    assert deployment.python("edge-1", find) == "True False False"


def test_every_health_check_passes(deployment: Deployment) -> None:
    health = {s: deployment.container(s).attrs["State"].get("Health", {}).get("Status") for s in SERVICES}
    assert health == {**dict.fromkeys(SERVICES, "healthy"), "gateway": None}
