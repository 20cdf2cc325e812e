"""The content store: whole blobs only, resumed, verified, one writer a ref."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.content import ContentStore, Info
from engine.errors import Conflict, ContentCorrupt, InvalidInput, NotFound
from engine.oci.digest import Digest

DATA = b"a layer's bytes " * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def leftovers(store: ContentStore) -> list[Path]:
    return list(store._ingests.iterdir())


def test_put_read_info_walk_delete(store: ContentStore) -> None:
    assert store.put(DATA) == DIGEST
    assert store.put(DATA) == DIGEST
    assert store.has(DIGEST)
    assert store.read(DIGEST) == DATA
    assert store.info(DIGEST) == Info(DIGEST, len(DATA))
    assert list(store.walk()) == [Info(DIGEST, len(DATA))]
    with store.open(DIGEST) as file:
        assert store.delete(DIGEST)
        assert file.read() == DATA
    assert not store.delete(DIGEST)
    assert not store.has(DIGEST)
    assert leftovers(store) == []


def test_what_is_absent_is_named(store: ContentStore) -> None:
    for call in (store.info, store.open, store.read):
        with pytest.raises(NotFound, match=DIGEST.hex):
            call(DIGEST)


def test_only_the_owner_reaches_the_blobs(store: ContentStore, tmp_path: Path) -> None:
    store.put(DATA)
    assert (tmp_path / "content").stat().st_mode & 0o077 == 0
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o444


def test_read_is_bounded_and_verified(store: ContentStore) -> None:
    store.put(DATA)
    with pytest.raises(InvalidInput, match="larger than 100 bytes"):
        store.read(DIGEST, limit=100)
    store.path(DIGEST).chmod(0o644)
    store.path(DIGEST).write_bytes(DATA[:-1] + b"!")
    with pytest.raises(ContentCorrupt, match="damaged"):
        store.read(DIGEST)


def test_resume_goes_on_where_the_connection_broke(store: ContentStore) -> None:
    with pytest.raises(ConnectionError), store.ingest("r", DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:5000])
        raise ConnectionError
    assert not store.has(DIGEST)
    with store.ingest("r", DIGEST, len(DATA)) as ingest:
        assert ingest.offset == 5000
        ingest.write(DATA[5000:])
        assert ingest.commit() == DIGEST
    assert store.read(DIGEST) == DATA
    assert leftovers(store) == []


def test_resume_after_the_writer_was_killed(store: ContentStore, tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from engine.content import ContentStore
from engine.oci.digest import Digest
with ContentStore(Path({str(tmp_path / "content")!r})).ingest("r", Digest({str(DIGEST)!r})) as i:
    i.write({DATA[:300]!r})
    print("written", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        with pytest.raises(Conflict, match="already being written"):
            store.ingest("r", DIGEST, wait=False).__enter__()
        assert store.expire_ingests(-1) == 0, "an ingest somebody holds is not expired"
        child.send_signal(signal.SIGKILL)
    with store.ingest("r", DIGEST, len(DATA)) as ingest:
        assert ingest.offset == 300
        ingest.write(DATA[300:])
        ingest.commit()
    assert store.read(DIGEST) == DATA


@pytest.mark.parametrize(
    ("sent", "size", "says"),
    [
        (DATA[:-1], len(DATA), "were promised"),
        (DATA[:-1] + b"?", len(DATA), "has the digest"),
        (DATA + b"more", len(DATA), "longer than"),
        (DATA[:-1], None, "has the digest"),
    ],
)
def test_wrong_bytes_are_refused_and_dropped(
    store: ContentStore, sent: bytes, size: int | None, says: str
) -> None:
    with pytest.raises(ContentCorrupt, match=says), store.ingest("r", DIGEST, size) as ingest:
        ingest.write(sent)
        ingest.commit()
    assert not store.has(DIGEST)
    assert leftovers(store) == []


def test_a_tampered_remainder_is_found_out(store: ContentStore) -> None:
    with store.ingest("r", DIGEST, len(DATA)) as ingest:
        ingest.write(b"X" * 5000)
    with pytest.raises(ContentCorrupt), store.ingest("r", DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[5000:])
        ingest.commit()
    with store.ingest("r", DIGEST, len(DATA)) as ingest:
        assert ingest.offset == 0


def test_without_an_expected_digest_nothing_is_resumed(store: ContentStore) -> None:
    with store.ingest("build-1") as ingest:
        ingest.write(b"half")
    assert leftovers(store) == []
    with store.ingest("build-1") as ingest:
        assert ingest.offset == 0
        ingest.write(DATA)
        assert ingest.commit() == DIGEST
    with pytest.raises(InvalidInput):
        ingest.write(b"more")


def test_a_second_writer_waits_and_finds_the_blob(store: ContentStore) -> None:
    seen: list[int] = []

    def second() -> None:
        with store.ingest("r", DIGEST, len(DATA)) as ingest:
            seen.append(ingest.offset)
            assert ingest.commit() == DIGEST

    with store.ingest("r", DIGEST, len(DATA)) as ingest:
        thread = threading.Thread(target=second)
        thread.start()
        ingest.write(DATA)
        thread.join(0.05)
        assert thread.is_alive()
        ingest.commit()
    thread.join()
    assert seen == [len(DATA)]
    assert leftovers(store) == []


def test_many_writers_of_one_blob(store: ContentStore) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                store.put(DATA)
                store.delete(DIGEST)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.put(DATA) == DIGEST
    assert store.read(DIGEST) == DATA


def test_old_ingests_expire(store: ContentStore) -> None:
    for name in ("old", "new"):
        with store.ingest(name, DIGEST) as ingest:
            ingest.write(b"half")
    old = store._ingests / hashlib.sha256(b"old").hexdigest()
    os.utime(old, (0, 0))
    assert store.expire_ingests(3600) == 1
    assert [path.name for path in leftovers(store)] == [hashlib.sha256(b"new").hexdigest()]
