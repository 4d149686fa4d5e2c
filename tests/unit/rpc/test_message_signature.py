from datetime import UTC, datetime, timedelta

import pytest

from diredi.errors import InvalidInput, Refused
from diredi.rpc.message_signature import check_message, sign_message, signer_of
from diredi.rpc.v1.cycles_pb2 import GapManifest
from diredi.trust import ca


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    ca.init(folder / "ca")
    return folder


def signed(credentials, **said):
    manifest = GapManifest(cycle_id="c1", train_images=200, **said)
    sign_message(manifest, credentials)
    return manifest


def issued(pki, authority="ca", **options):
    return ca.issue(pki / authority, "site", "site-1", [], pki / "site-1", **options)


def test_a_manifest_on_record_names_its_site_after_the_certificate_was_renewed(pki):
    old = issued(pki, now=datetime.now(UTC) - timedelta(days=300), lifetime=timedelta(days=200))
    manifest, new = signed(old), issued(pki)
    assert str(signer_of(manifest, old.certificate, new.ca)) == "site/site-1"
    with pytest.raises(Refused, match="not by the key"):
        check_message(manifest, new.certificate)


def test_a_manifest_of_another_cycle_or_with_other_metrics_is_refused(pki):
    site = issued(pki)
    for change in ({"cycle_id": "c2"}, {"train_images": 9000}, {"boxes": {"car": 1}}):
        manifest = signed(site)
        manifest.MergeFrom(GapManifest(**change))
        with pytest.raises(Refused):
            check_message(manifest, site.certificate)
    with pytest.raises(InvalidInput, match="not signed"):
        check_message(GapManifest(cycle_id="c1"), site.certificate)


def test_the_order_in_which_counts_were_entered_is_of_no_matter(pki):
    site = issued(pki)
    manifest = signed(site, boxes={"car": 1, "bus": 2})
    check_message(GapManifest(
        cycle_id="c1", train_images=200, boxes={"bus": 2, "car": 1}, signature=manifest.signature
    ), site.certificate)  # fmt: skip


def test_a_certificate_that_somebody_made_for_himself_proves_nothing_on_record(pki):
    fleet = issued(pki)
    ca.init(pki / "forger")
    forged = issued(pki, "forger")
    check_message(signed(forged), forged.certificate)  # the signature is right, and the site's name is in it
    with pytest.raises(Refused, match="not of this authority"):
        signer_of(signed(forged), forged.certificate, fleet.ca)
