"""The list of devices that the console shows, in both databases: what is wrong with each, filters and order."""

from __future__ import annotations

from datetime import timedelta

from cloud_server.entities import Install, Outcome, Vitals
from cloud_server.store import Repository
from cloud_server.store.database import Database
from cloud_server.store.fleet import DeviceQuery, Trouble
from diredi.trust.live import ENDS_SOON
from tests.unit.cloud_server.samples import NOON, later


def fill(r: Repository) -> None:
    r.sites.record_contact("site-1", NOON)
    reports = {
        "away": (Vitals(), -60),
        "drifting": (Vitals(drifts={"front": "light"}), 0),
        "ending": (Vitals(certificate_expires=NOON + ENDS_SOON - timedelta(hours=1)), 0),
        "failing": (Vitals(frames=100, failed_frames=2), 0),
        "fine": (Vitals(frames=1000, failed_frames=2, certificate_expires=NOON + 2 * ENDS_SOON), 0),
        "stalled": (Vitals(updates_stalled=True, runtime="openvino"), 0),
        "without": (Vitals(), 0),
    }
    for name, (vitals, at) in reports.items():
        r.devices.record_contact(name, "site-1", later(at), vitals)
    for second, outcome in enumerate((Outcome.FAILED, Outcome.INSTALLED, Outcome.FAILED)):
        for name in ("fine", "without") if second < 2 else ("without",):
            install = Install(release_version=2 + second, outcome=outcome, at=later(second))
            r.devices.record_install(f"site-1/{name}", install)


def test_what_is_wrong_with_a_device_is_found_and_counted_and_devices_come_in_pages(database: Database) -> None:
    database.transact(fill, writes=True)

    def names(r: Repository, query: DeviceQuery, offset: int = 0, limit: int = 10) -> list[str]:
        return [device.name for device in r.devices.search(query, NOON, offset, limit)[0]]

    def look(r: Repository) -> None:
        wrong = {
            "away": Trouble.AWAY, "drifting": Trouble.DRIFT, "ending": Trouble.CERTIFICATE,
            "failing": Trouble.FAILED_FRAMES, "stalled": Trouble.NO_UPDATES, "without": Trouble.FAILED_INSTALL,
        }  # fmt: skip
        for name, trouble in wrong.items():
            assert names(r, DeviceQuery(trouble=trouble)) == [name]
            assert r.devices.troubles_of(f"site-1/{name}", NOON) == (trouble,)
        assert names(r, DeviceQuery(healthy=True)) == ["fine"]
        assert r.devices.count_troubles(NOON) == (7, dict.fromkeys(Trouble, 1))
        assert names(r, DeviceQuery(text="ING")) == ["drifting", "ending", "failing"]
        assert names(r, DeviceQuery(text="_")) == []
        assert names(r, DeviceQuery(sort="seen"))[0] == "away"
        assert names(r, DeviceQuery(descending=True), offset=5) == ["drifting", "away"]
        assert r.devices.search(DeviceQuery(site="site-1"), NOON, 0, 2)[1] == 7
        assert names(r, DeviceQuery(release=3)) == ["fine", "without"]
        assert r.devices.known_values() == (["site-1"], {3: 2, 0: 5}, ["openvino"])
        assert r.devices.failures_of([2, 4]) == {("site-1/fine", 2), ("site-1/without", 2), ("site-1/without", 4)}

    database.transact(look, writes=False)
