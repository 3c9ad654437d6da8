"""What several machines share: fetched where it is whole, told where it is not, never half there."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc import digest, shared_store
from slmc.errors import MissingToolError, StoreError
from slmc.seal import SEAL, parse_seal
from slmc.shared_store import SharedStore
from slmc.store import Stage, Store

from ..s3_server import BUCKET, s3_server

STAGE = Stage("merge", {"base": "abc", "triples": ("x", "y")})


def write_hello(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("hello")
    (folder / "empty").write_text("")
    (folder / "same").write_text("hello")


def refuse(folder: Path) -> None:
    raise AssertionError("made again")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = uuid.uuid4().hex
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{name}/of builds"
    return f"memory://{name}" if request.param == "memory" else (tmp_path / "shared").as_uri()


@pytest.fixture
def store_of(url: str, tmp_path: Path) -> Callable[[str], Store]:
    """A machine's store."""
    return lambda machine: Store(tmp_path / machine, SharedStore(url))


def objects(url: str) -> dict[str, bytes]:
    """All that lies in the place."""
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {path.removeprefix(root).lstrip("/"): files.cat_file(path) for path in files.find(root)}


def put(url: str, name: str, content: bytes) -> None:
    files, root = fsspec.core.url_to_fs(url, auto_mkdir=True) if url.startswith("file") else fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/{name}", content)


def remove(url: str, name: str) -> None:
    files, root = fsspec.core.url_to_fs(url)
    files.rm_file(f"{root}/{name}")


def content_of(text: str) -> str:
    return f"files/{hashlib.sha256(text.encode()).hexdigest()}"


SEALED = f"merge/{STAGE.key}.json"


def test_what_one_machine_made_another_fetches(store_of: Callable[[str], Store], url: str) -> None:
    made = store_of("one").obtain(STAGE, write_hello)
    other = store_of("other")
    fetched = other.obtain(STAGE, refuse)
    assert (made.reused, fetched.reused, fetched.seconds) == (False, True, made.seconds)
    assert digest.of_folder(fetched.folder) == digest.of_folder(made.folder)
    assert fetched.folder.is_relative_to(other.root)
    assert other.obtain(STAGE, refuse).reused
    assert list((other.root / "work").iterdir()) == []
    # What two files have in common lies there once.
    assert objects(url).keys() == {"slmc.json", SEALED, content_of("hello"), content_of("")}


def test_what_was_made_alone_is_shared_later(store_of: Callable[[str], Store], tmp_path: Path) -> None:
    Store(tmp_path / "one").obtain(STAGE, write_hello)
    assert store_of("one").obtain(STAGE, refuse).reused
    assert store_of("other").obtain(STAGE, refuse).reused


def test_a_path_into_a_result_is_brought(store_of: Callable[[str], Store]) -> None:
    made, other = store_of("one").obtain(STAGE, write_hello), store_of("other")
    path = other.root / "merge" / made.key / "sub" / "file"
    assert other.bring(path).read_text() == "hello"
    with pytest.raises(StoreError, match="result of stage merge is gone"):
        other.bring(other.root / "merge" / ("0" * 64))
    with pytest.raises(ValueError, match="not in the subpath"):
        other.bring(other.root.parent / "x")


@pytest.mark.parametrize("fault", ["cut", "changed", "longer"])
def test_damaged_content_is_told_and_not_used(store_of: Callable[[str], Store], url: str, fault: str) -> None:
    store_of("one").obtain(STAGE, write_hello)
    put(url, content_of("hello"), {"cut": b"hel", "changed": b"hallo", "longer": b"hello!"}[fault])
    other = store_of("other")
    with pytest.raises(StoreError, match=r"damaged: .* cut short, or changed") as error:
        other.obtain(STAGE, refuse)
    assert str(error.value.where).endswith(content_of("hello"))
    assert "remove that object" in str(error.value.todo)
    assert not other.has(STAGE)
    assert list((other.root / "work").iterdir()) == []
    # What the error says to do, done:
    remove(url, content_of("hello"))
    assert not other.obtain(STAGE, write_hello).reused
    assert store_of("third").obtain(STAGE, refuse).reused


def test_a_seal_whose_content_was_cleaned_away_is_nothing(
    store_of: Callable[[str], Store], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of("one").obtain(STAGE, write_hello)
    remove(url, content_of("hello"))
    other = store_of("other")
    assert not other.obtain(STAGE, write_hello).reused
    assert "merge is sealed in the shared store, but same is gone" in capsys.readouterr().err
    assert store_of("third").obtain(STAGE, refuse).reused


def test_an_upload_that_is_interrupted_leaves_no_result(
    store_of: Callable[[str], Store], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = store_of("one")
    assert one.shared is not None
    sent: list[str] = []

    def stop(self: SharedStore, path: Path, found: str, callback: object) -> None:
        if sent:
            raise KeyboardInterrupt
        sent.append(found)
        really(self, path, found, callback)

    really = SharedStore._put
    monkeypatch.setattr(SharedStore, "_put", stop)
    with pytest.raises(KeyboardInterrupt):
        one.obtain(STAGE, write_hello)
    monkeypatch.undo()
    assert SEALED not in objects(url)
    assert not store_of("other").obtain(STAGE, write_hello).reused
    assert store_of("one").obtain(STAGE, refuse).reused


def test_half_an_upload_is_no_content(url: str, tmp_path: Path) -> None:
    """What a killed process left of a file, on a place that shows it, is sent again."""
    put(url, content_of("hello"), b"hel")
    Store(tmp_path / "one", SharedStore(url)).obtain(STAGE, write_hello)
    assert Store(tmp_path / "other", SharedStore(url)).obtain(STAGE, refuse).reused


def test_two_makers_at_once_leave_one_whole_result(store_of: Callable[[str], Store], url: str) -> None:
    """What they make differs, as timings do; whichever is sealed last stands, with its own files."""
    both = threading.Barrier(2)

    def make(name: str) -> None:
        def write(folder: Path) -> None:
            (folder / "timings").write_text(name)
            (folder / "weights").write_text("the same")
            both.wait(10)

        store_of(name).obtain(STAGE, write)

    makers = [threading.Thread(target=make, args=(name,)) for name in ("one", "two")]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(20)
    third = store_of("third").obtain(STAGE, refuse)
    assert (third.folder / "timings").read_text() in ("one", "two")
    assert not [name for name in objects(url) if name.endswith(".part")]


HOSTILE = ["../out", "/etc/out", "a/../../out", "a//b", "", ".", "a\\..\\out", "C:out", "a\x00b", SEAL, "a/./b", "a/.."]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leaves_the_folder_is_refused(url: str, tmp_path: Path, name: str) -> None:
    one = Store(tmp_path / "one", SharedStore(url))
    raw = json.loads((one.obtain(STAGE, write_hello).folder / SEAL).read_text())
    raw["files"][name] = raw["files"].pop("same")
    put(url, SEALED, json.dumps(raw).encode())
    before = set(tmp_path.rglob("*"))
    other = Store(tmp_path / "other", SharedStore(url))
    with pytest.raises(StoreError, match="its seal can't be read"):
        other.obtain(STAGE, refuse)
    assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file()} <= {
        other.root / "merge" / f"{STAGE.key}.lock"
    }


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"a": "../../x"}},
        {"files": {"a": "0" * 63}},
        {"files": {"a": "0" * 64, "a/b": "0" * 64}},
        {"schema": 2},
        {"stage": "quantize"},
        {"inputs": {"base": "another"}},
        {"inputs": {"base": float("nan")}},
        {"more": 1},
        {"seconds": "x"},
    ],
)
def test_a_seal_that_says_something_else_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    url = (tmp_path / "shared").as_uri()
    folder = Store(tmp_path / "one", SharedStore(url)).obtain(STAGE, write_hello).folder
    put(url, SEALED, json.dumps(json.loads((folder / SEAL).read_text()) | change).encode())
    with pytest.raises(StoreError, match="damaged") as error:
        Store(tmp_path / "other", SharedStore(url)).obtain(STAGE, refuse)
    assert str(error.value.where).endswith(SEALED)


@given(text=st.binary(max_size=60) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_whatever_is_no_seal_is_named(text: bytes | str) -> None:
    with pytest.raises(StoreError):
        parse_seal(text.encode() if isinstance(text, str) else text, "here")


def test_another_version_s_place_is_left_alone(store_of: Callable[[str], Store], url: str) -> None:
    put(url, "slmc.json", b'{"schema": 2}')
    with pytest.raises(StoreError, match="another version"):
        store_of("one").obtain(STAGE, refuse)


def test_a_place_that_cant_be_reached_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StoreError, match="shared store can't be read: Could not connect") as error:
        Store(tmp_path, SharedStore("s3://builds/x")).obtain(STAGE, refuse)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert error.value.where == "s3://builds/x"
    assert "--shared-store" in str(error.value.todo)


def test_a_bucket_that_is_not_there_is_told_before_anything_is_made(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="shared store can't be written: The specified bucket does not exist"):
        Store(tmp_path, SharedStore("s3://another/x")).obtain(STAGE, refuse)


def test_what_fails_in_passing_is_tried_again(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "WAIT_S", 0.001)
    shared = SharedStore(url)
    failures = itertools.cycle([True, True, True, False])
    tried = SharedStore._tried

    def shaky(self: SharedStore, act: Callable[[], object], done: str) -> object:
        def cut() -> object:
            if next(failures):
                raise ConnectionResetError("the line was cut")
            return act()

        return tried(self, cut, done)

    monkeypatch.setattr(SharedStore, "_tried", shaky)
    Store(tmp_path / "one", shared).obtain(STAGE, write_hello)
    assert Store(tmp_path / "other", shared).obtain(STAGE, refuse).reused
    failures = itertools.cycle([True])
    with pytest.raises(StoreError, match="can't be read: the line was cut"):
        Store(tmp_path / "third", shared).obtain(STAGE, refuse)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://bucket/x", "s3://bucket/x"),
        ("sftp://me:pass%2Fword@host:22/x", "sftp://***@host:22/x"),
        ("https://host/x?sig=abc&se=1", "https://host/x?***"),
        ("simplecache::ftp://me:pw@host/x", "simplecache::ftp://***@host/x"),
        ("s3://key:sec@ret@bucket/x", "s3://***@bucket/x"),
    ],
)
def test_no_credentials_are_shown(url: str, told: str) -> None:
    assert shared_store.shown(url) == told
    assert "ret" not in shared_store.shown("s3://key:sec@ret@b/x", "bad bucket: 'key:sec@ret@b'")
    assert "pass/word" not in shared_store.shown(url, f"{url} for me:pass/word") or "pass" not in url


def test_an_error_shows_no_credentials(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(StoreError) as error:
        Store(tmp_path, SharedStore("s3://me:word@bucket/x")).obtain(STAGE, refuse)
    assert "word" not in str(error.value)


def test_a_kind_that_nothing_opens_is_told() -> None:
    with pytest.raises(StoreError, match="no shared store can be at that URL"):
        SharedStore("nonsense://x")
    with pytest.raises(MissingToolError, match="needs a package"):
        SharedStore("oci://bucket/x")


def test_a_folder_is_a_place_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Store(tmp_path / "one", SharedStore("shared")).obtain(STAGE, write_hello)
    assert SharedStore("shared").url == (tmp_path / "shared").as_uri()
    assert Store(tmp_path / "other", SharedStore(str(tmp_path / "shared"))).obtain(STAGE, refuse).reused
