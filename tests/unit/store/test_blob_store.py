import hashlib
import os
import random
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diredi.errors import CorruptData, InvalidInput, NoRoom, NotFound, OffsetBeyondEnd
from diredi.store.blobs import Blob, BlobState, BlobStore

CONTENT = random.Random(0).randbytes(10_000)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


DIGEST = digest_of(CONTENT)


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs")


def files_of(store):
    """Every file of the store with its content: what must not change when something is refused."""
    return {str(p.relative_to(store.root)): p.read_bytes() for p in store.root.rglob("*") if p.is_file()}


def put(store, data=CONTENT, chunk=3000, digest=None):
    state = store.stat(digest or digest_of(data))
    for offset in range(0, len(data), chunk):
        state = store.put_chunk(digest or digest_of(data), len(data), offset, data[offset : offset + chunk])
    return state


def test_chunks_become_a_blob_under_their_digest(store):
    assert put(store) == BlobState(True, len(CONTENT))
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert store.blob(DIGEST) == Blob(DIGEST, len(CONTENT))
    assert DIGEST in store


def test_an_upload_goes_on_after_a_restart(store, tmp_path):
    store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:3000])

    again = BlobStore(tmp_path / "blobs")
    assert again.stat(DIGEST) == BlobState(False, 3000)
    assert again.put_chunk(DIGEST, len(CONTENT), 3000, CONTENT[3000:]).complete


def test_a_killed_store_that_had_all_bytes_completes_with_the_next_chunk(store, tmp_path):
    (store.root / "partial" / DIGEST.removeprefix("sha256:")).write_bytes(CONTENT)

    assert store.put_chunk(DIGEST, len(CONTENT), 9000, CONTENT[9000:]).complete


def test_an_incomplete_blob_cannot_be_read(store):
    store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:3000])

    assert DIGEST not in store
    with pytest.raises(NotFound, match="not complete"):
        store.path(DIGEST)
    with pytest.raises(NotFound):
        list(store.chunks(DIGEST))


def test_a_chunk_that_is_there_already_is_accepted_again(store):
    for _ in range(2):
        state = store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:3000])
    assert state == BlobState(False, 3000)
    assert store.put_chunk(DIGEST, len(CONTENT), 2000, CONTENT[2000:5000]) == BlobState(False, 5000)
    put(store)
    assert store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:3000]) == BlobState(True, len(CONTENT))
    assert store.path(DIGEST).read_bytes() == CONTENT


def test_a_gap_in_an_upload_is_refused_and_says_where_to_go_on(store):
    store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:3000])
    before = files_of(store)

    with pytest.raises(OffsetBeyondEnd, match="3000 bytes"):
        store.put_chunk(DIGEST, len(CONTENT), 4000, CONTENT[4000:5000])
    assert files_of(store) == before


def test_wrong_bytes_are_dropped_when_the_last_chunk_came(store):
    wrong = bytes(len(CONTENT))

    with pytest.raises(CorruptData, match=digest_of(wrong)):
        put(store, wrong, digest=DIGEST)
    assert files_of(store) == {}
    assert put(store).complete


@pytest.mark.parametrize(("offset", "length"), [(9_999, 2), (10_000, 1), (20_000, 1), (-1, 1)])
def test_bytes_outside_the_total_are_refused(store, offset, length):
    with pytest.raises(InvalidInput, match="not within"):
        store.put_chunk(DIGEST, 10_000, offset, b"x" * length)
    assert files_of(store) == {}


def test_another_total_for_the_same_blob_is_refused(store):
    put(store)
    with pytest.raises(InvalidInput, match="10000 bytes, not 5"):
        store.put_chunk(DIGEST, 5, 0, b"12345")

    store.put_chunk(digest_of(b"x"), 5000, 0, bytes(4000))
    with pytest.raises(InvalidInput, match="more than 100"):
        store.put_chunk(digest_of(b"x"), 100, 0, bytes(10))


def test_a_blob_that_is_too_large_is_refused_before_a_byte_is_kept(tmp_path):
    store = BlobStore(tmp_path / "blobs", max_blob_bytes=5000)

    with pytest.raises(NoRoom, match="at most 5000"):
        store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:10])
    assert files_of(store) == {}


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "../../../etc/passwd", "sha256:../" + "0" * 61, "sha256:" + "A" * 64, "sha256:" + "0" * 63 + "\n",
     "sha1:" + "0" * 40, "sha256:" + "0" * 65, "sha256:" + "\uff10" * 64, DIGEST + "\n"],
)  # fmt: skip
def test_what_is_not_a_digest_never_becomes_a_path(store, digest):
    for use in (store.stat, store.path, store.remove, store.__contains__):
        with pytest.raises(InvalidInput, match="not a digest"):
            use(digest)
    with pytest.raises(InvalidInput, match="not a digest"):
        store.put_chunk(digest, 1, 0, b"x")


@contextmanager
def largest_file(size):
    """The kernel refuses to let any file of this process grow beyond `size`, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("received", [0, 3000])
def test_a_disk_that_fills_up_in_mid_chunk_leaves_the_store_as_it_was(store, received):
    if received:
        store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:received])
    before = files_of(store)

    with largest_file(received + 1000), pytest.raises(NoRoom, match="no room on the disk"):
        store.put_chunk(DIGEST, len(CONTENT), received, CONTENT[received : received + 3000])

    assert files_of(store) == before
    assert put(store).complete


def test_adding_to_a_full_disk_leaves_the_store_as_it_was(store, tmp_path):
    (tmp_path / "weights").write_bytes(CONTENT)

    with largest_file(1000), pytest.raises(NoRoom):
        store.add_file(tmp_path / "weights")
    assert files_of(store) == {}


def test_a_file_of_this_machine_becomes_a_blob(store, tmp_path):
    (tmp_path / "weights").write_bytes(CONTENT)

    assert store.add_file(tmp_path / "weights") == store.add_file(tmp_path / "weights") == Blob(DIGEST, len(CONTENT))
    assert store.add_bytes(CONTENT) == Blob(DIGEST, len(CONTENT))
    assert list(files_of(store)) == [str(store.path(DIGEST).relative_to(store.root))]


def test_the_empty_blob_is_a_blob(store):
    assert store.put_chunk(digest_of(b""), 0, 0, b"").complete
    assert list(store.chunks(digest_of(b""))) == []


@pytest.mark.parametrize("offset", [0, 1, 4096, 9_999, 10_000])
def test_reading_starts_at_any_offset(store, offset):
    put(store)

    assert b"".join(store.chunks(DIGEST, offset, 4096)) == CONTENT[offset:]


def test_reading_beyond_the_end_is_refused(store):
    put(store)

    with pytest.raises(OffsetBeyondEnd, match="10000 bytes"):
        list(store.chunks(DIGEST, 10_001))


def test_many_uploads_of_the_same_blob_at_once_give_one_whole_blob(store):
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda chunk: put(store, chunk=chunk), [700, 701, 1000, 2048, 3000, 999, 5000, 10_000]))

    assert all(state.complete for state in states)
    assert list(files_of(store).values()) == [CONTENT]


def test_an_upload_may_race_with_adding_the_same_file(store, tmp_path):
    (tmp_path / "weights").write_bytes(CONTENT)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(put, store) for _ in range(8)]
        jobs += [pool.submit(store.add_file, tmp_path / "weights") for _ in range(8)]
        for job in jobs:
            job.result()

    assert list(files_of(store).values()) == [CONTENT]


def test_an_added_file_overtakes_an_upload(store):
    store.put_chunk(DIGEST, len(CONTENT), 0, CONTENT[:3000])
    store.add_bytes(CONTENT)

    assert store.put_chunk(DIGEST, len(CONTENT), 3000, CONTENT[3000:4000]).complete
    assert list(files_of(store).values()) == [CONTENT]


def test_removing_forgets_a_blob_and_its_partial(store):
    put(store)
    store.put_chunk(digest_of(b"other"), 5, 0, b"ot")
    store.remove(DIGEST)
    store.remove(digest_of(b"other"))
    store.remove(digest_of(b"never here"))

    assert files_of(store) == {}


def test_only_partials_that_nobody_goes_on_with_are_dropped(store):
    put(store)
    store.put_chunk(digest_of(b"old"), 3, 0, b"o")
    store.put_chunk(digest_of(b"new"), 3, 0, b"n")
    os.utime(store.root / "partial" / digest_of(b"old").removeprefix("sha256:"), (0, 0))

    assert len(store.drop_partials(older_than_s=3600)) == 1
    assert store.stat(digest_of(b"old")).received_bytes == 0
    assert store.stat(digest_of(b"new")).received_bytes == 1
    assert DIGEST in store


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 120)), max_size=12))
def test_whatever_order_chunks_come_in_the_blob_is_whole_or_absent(tmp_path_factory, data, cuts):
    store = BlobStore(tmp_path_factory.mktemp("blobs"))
    digest, here = digest_of(data), 0
    for offset, length in cuts:
        piece = data[offset : offset + length]
        if offset > len(data):
            continue
        if offset > here:
            with pytest.raises(OffsetBeyondEnd):
                store.put_chunk(digest, len(data), offset, piece)
        else:
            here = max(here, offset + len(piece))
            assert store.put_chunk(digest, len(data), offset, piece) == BlobState(here == len(data), here)
    assert (digest in store) == bool(cuts and here == len(data) and any(c[0] <= len(data) for c in cuts))
    if digest in store:
        assert store.path(digest).read_bytes() == data
