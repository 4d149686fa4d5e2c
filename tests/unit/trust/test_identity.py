import pytest

from diredi.errors import InvalidInput
from diredi.trust import ca
from diredi.trust.identity import Identity, Role

EVERYONE = [
    Identity(Role.CLOUD, "cloud"),
    Identity(Role.SITE, "site-1"),
    Identity(Role.DEVICE, "camera-1", "site-1"),
    Identity(Role.OPERATOR, "alice"),
]


@pytest.mark.parametrize("identity", EVERYONE, ids=str)
def test_an_identity_survives_its_uri(identity):
    assert Identity.from_uri(identity.uri) == identity


def test_a_site_is_its_own_site_and_a_device_names_its_own():
    assert Identity(Role.SITE, "site-1").site == "site-1"
    assert str(Identity(Role.DEVICE, "camera-1", "site-1")) == "device/site-1/camera-1"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../cloud", "a b", "a\nb", "é", "x" * 64, "a%2Fb"])
def test_a_name_that_could_mean_something_else_is_refused(name):
    with pytest.raises(InvalidInput, match="cannot be a name"):
        Identity(Role.SITE, name)


def test_a_device_without_a_site_is_refused():
    with pytest.raises(InvalidInput, match="needs site"):
        Identity(Role.DEVICE, "camera-1")


def test_an_operator_of_a_site_is_refused():
    with pytest.raises(InvalidInput, match="has no site"):
        Identity(Role.OPERATOR, "alice", "site-1")


@pytest.mark.parametrize(
    "uri",
    ["", "diredi://", "diredi://king/arthur", "diredi://site/a/b", "diredi://device/camera-1", "https://site/site-1"],
)
def test_a_uri_that_is_no_identity_is_refused(uri):
    with pytest.raises(InvalidInput):
        Identity.from_uri(uri)


@pytest.mark.parametrize("identity", EVERYONE, ids=str)
def test_a_certificate_says_who_its_holder_is(tmp_path, identity):
    ca.init(tmp_path / "ca")
    site = identity.site if identity.role is Role.DEVICE else ""

    issued = ca.issue(tmp_path / "ca", identity.role, identity.name, ["localhost"], tmp_path / "own", site)

    assert issued.identity == identity
    assert Identity.from_certificate(issued.certificate) == identity
