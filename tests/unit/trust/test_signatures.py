import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from diredi.errors import InvalidInput, Refused
from diredi.trust import ca
from diredi.trust.identity import Credentials
from diredi.trust.signatures import check, sign


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Credentials:
    folder = tmp_path_factory.mktemp("pki")
    ca.init(folder / "ca")
    return ca.issue(folder / "ca", "site", "site-1", [], folder / "site-1")


def test_a_signature_is_known_by_the_certificate(site):
    check(site.certificate, "manifest", b"what was said", sign(site, "manifest", b"what was said"))


def test_another_word_another_purpose_or_another_signature_is_refused(site):
    signature = sign(site, "manifest", b"what was said")
    for purpose, data, given in [
        ("manifest", b"what was not said", signature),
        ("release", b"what was said", signature),
        ("manifestwhat", b" was said", signature),
        ("manifest", b"what was said", signature[:-1]),
        ("manifest", b"what was said", b""),
    ]:
        with pytest.raises(Refused, match="site/site-1"):
            check(site.certificate, purpose, data, given)


def test_a_key_that_cannot_sign_so_is_named_with_the_remedy(site):
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidInput, match="diredi pki issue"):
        sign(Credentials(site.identity, site.expires, site.ca, site.certificate, pem), "manifest", b"x")
