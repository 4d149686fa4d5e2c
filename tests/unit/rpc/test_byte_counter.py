import pytest

from diredi.errors import CorruptData
from diredi.rpc.byte_counter import FRAME_BYTES, EgressMeter, IngressMeter


def test_a_message_counts_with_its_frame(tmp_path):
    meter = EgressMeter(tmp_path / "egress.json")
    meter.count("diredi.v1.PutChunkRequest", 100)
    meter.count("diredi.v1.PutChunkRequest", 0)
    meter.count("diredi.v1.StatBlobRequest", 73)

    assert meter.totals() == {"diredi.v1.PutChunkRequest": 100 + 2 * FRAME_BYTES, "diredi.v1.StatBlobRequest": 78}
    assert meter.messages() == {"diredi.v1.PutChunkRequest": 2, "diredi.v1.StatBlobRequest": 1}
    assert meter.total_bytes == 188


def test_totals_go_on_after_a_restart(tmp_path):
    EgressMeter(tmp_path / "egress.json").count("a", 10)
    again = EgressMeter(tmp_path / "egress.json")
    again.count("a", 10)

    assert EgressMeter(tmp_path / "egress.json").totals() == {"a": 30}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bytes": {"a": "many"}, "messages": {}}'])
def test_a_broken_file_is_named_and_kept(tmp_path, content):
    path = tmp_path / "egress.json"
    path.write_text(content)

    with pytest.raises(CorruptData, match=r"egress\.json"):
        EgressMeter(path)
    assert path.read_text() == content


def test_peers_are_counted_apart_whatever_their_names(tmp_path):
    meter = IngressMeter(tmp_path)
    meter.count("device/a_b/c", "m", 1)
    meter.count("device/a/b_c", "m", 2)

    again = IngressMeter(tmp_path)
    assert again.totals("device/a_b/c") == {"m": 6}
    assert again.totals("device/a/b_c") == {"m": 7}
    assert again.totals("site/unknown") == {}
