from diredi.rpc.blobs import UPLOAD_CHUNK_BYTES, Pace


def chunk_after(*seconds):
    pace = Pace()
    for one in seconds:
        pace.took(one)
    return pace.chunk_bytes


def test_a_fast_link_gets_the_largest_chunks_soon():
    assert chunk_after(*[0.01] * 4) == chunk_after(*[0.01] * 100) == UPLOAD_CHUNK_BYTES


def test_a_slow_link_gets_small_chunks():
    assert chunk_after(*[5.0] * 100) == 16 * 1024


def test_a_chunk_that_takes_as_long_as_it_should_changes_nothing():
    assert chunk_after(0.5, 0.5, 0.5) == chunk_after()


def test_whatever_the_bandwidth_a_chunk_comes_to_take_about_a_second_at_most():
    for bytes_per_s in (20_000, 64_000, 300_000, 2_000_000):
        pace = Pace()
        for _ in range(20):
            pace.took(pace.chunk_bytes / bytes_per_s)
        assert pace.chunk_bytes / bytes_per_s <= 1
