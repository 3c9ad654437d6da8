"""The files to and from a test host: what is packed, what a session does with it, and archives that are hostile."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slmc import digest
from slmc.errors import BundleError, DeviceError, InputError, RunnerError
from slmc.farm.device_farm import package, returned
from slmc.farm.device_farm.job import TOLD, Job, Piece, Told, digest_of
from slmc.farm.device_farm.package import lay_out, pack, run_spec, write_zip
from slmc.farm.device_farm.returned import read_returned
from slmc.farm.device_farm.session import Limits, _lay_out, ask_in_parts, join, main, read_job
from slmc.on_device import artifact_of

from ...device_farm import Given, archived
from .device_farm_case import Phone, question_in, workload_of

SHA = "a" * 64


def packed_in(folder: Path, items: int = 40) -> package.Packed:
    (folder / "slm-run").write_bytes(b"a program")
    return pack(question_in(folder, items), lambda _: folder / "slm-run")


# ---- The package ----------------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    package_room=st.integers(0, 200),
    extra_room=st.integers(0, 200),
)
def test_pieces_are_the_files_and_have_room(sizes: list[int], package_room: int, extra_room: int) -> None:
    files = {f"{number:064x}": size for number, size in enumerate(sizes)}
    room: dict[package.Place, int] = {"package": package_room, "extra": extra_room}
    if sum(sizes) > package_room + extra_room:
        with pytest.raises(InputError, match="GB to send"):
            lay_out(files, room)
        return
    found = lay_out(files, room)
    assert {name: sum(piece.size for piece in pieces) for name, pieces in found.items()} == files
    every = [piece for pieces in found.values() for piece in pieces]
    for place, most in room.items():
        assert sum(piece.size for piece in every if piece.place == place) <= most
    assert len({(piece.place, piece.name) for piece in every}) == len(every)


def test_the_same_job_has_the_same_bytes_and_another_one_other(tmp_path: Path) -> None:
    zips = []
    for number, items in enumerate((40, 40, 41)):
        write_zip(packed_in(tmp_path, items), "package", tmp_path / f"{number}.zip")
        zips.append((tmp_path / f"{number}.zip").read_bytes())
    assert zips[0] == zips[1] != zips[2]


def test_a_test_spec_names_the_job_and_vouches_for_the_code(tmp_path: Path) -> None:
    packed = packed_in(tmp_path)
    spec = yaml.safe_load(run_spec(packed, 17))
    [command] = spec["phases"]["test"]["commands"]
    assert f"--job {digest_of(packed.job)} --first 17" in command
    assert digest.of_bytes(packed.code) in command
    assert digest.of_bytes(packed.packages) in command
    with zipfile.ZipFile(io.BytesIO(packed.code)) as code:
        assert "slmc/farm/device_farm/session.py" in code.namelist()


def test_every_package_of_a_test_host_is_pinned() -> None:
    lines = (Path(package.__file__).parent / package.PACKAGES).read_text().splitlines()
    assert all("==" in line and "--hash=sha256:" in line for line in lines if not line.startswith("#"))


# ---- A session ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unpacked(tmp_path: Path) -> tuple[Job, Path]:
    packed = packed_in(tmp_path)
    write_zip(packed, "package", tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        archive.extractall(tmp_path / "package")
    return packed.job, tmp_path / "package"


def no_phone(name: str, to: Path) -> None:
    raise AssertionError(name)


def test_a_job_that_was_changed_is_not_begun(unpacked: tuple[Job, Path], tmp_path: Path) -> None:
    job, folder = unpacked
    (folder / "job.json").write_text(job.model_copy(update={"minutes": 7}).model_dump_json())
    with pytest.raises(InputError, match="another than the test spec"):
        read_job(folder, digest_of(job))
    (tmp_path / "log").mkdir()
    chosen = ["--package", str(folder), "--job", digest_of(job), "--first", "0", "--serial", "s"]
    assert main([*chosen, "--log", str(tmp_path / "log")]) == 1
    told = Told.model_validate_json((tmp_path / "log" / TOLD).read_bytes())
    assert told.problem is not None
    assert "another than the test spec" in told.problem.what


def test_a_file_that_was_changed_is_not_used(unpacked: tuple[Job, Path], tmp_path: Path) -> None:
    job, folder = unpacked
    assert set(join(job, folder, tmp_path, no_phone)) == set(job.files)
    weights = max(job.files.values(), key=lambda pieces: pieces[0].size)[0].name
    with (folder / weights).open("r+b") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(BundleError, match="otherwise than the job vouches for"):
        join(job, folder, tmp_path, no_phone)


def test_pieces_are_joined_in_order(unpacked: tuple[Job, Path], tmp_path: Path) -> None:
    job, _ = unpacked
    content = bytes(range(256)) * 5
    pieces = (Piece(place="package", name="a", size=700), Piece(place="extra", name="b", size=580))
    (tmp_path / "a").write_bytes(content[:700])
    whole = job.model_copy(update={"files": {digest.of_bytes(content): pieces}})
    fetched = lambda _, to: to.write_bytes(content[700:]) and None  # noqa: E731
    [path] = join(whole, tmp_path, tmp_path, fetched).values()
    assert path.read_bytes() == content


def test_a_bundle_s_file_stays_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves the bundle"):
        _lay_out({"../out": SHA}, {SHA: tmp_path}, tmp_path / "bundle")


def asked(tmp_path: Path, phone: Phone, items: int, limits: Limits, *, control: bool = False) -> Told:
    for name in ("log", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    told = Told(job=SHA, facts=None, parts=(), speed=None, problem=None)
    question = question_in(tmp_path, items, control=control)
    limits = replace(limits, now=lambda: phone.time)
    return ask_in_parts(phone, question, told, 0, tmp_path / "log", tmp_path / "work", limits)


def test_parts_are_as_long_as_they_should_be(tmp_path: Path) -> None:
    phone = Phone(part_s=100)
    told = asked(tmp_path, phone, 2000, Limits(1e6))
    assert phone.parts[:3] == [32, 96, 288]
    assert sum(phone.parts) == 2000
    assert [part.first for part in told.parts] == [0, *(sum(phone.parts[: n + 1]) for n in range(len(phone.parts) - 1))]


@pytest.mark.parametrize("limits", [Limits(650), Limits(1e6, room=10)])
def test_a_session_ends_where_time_or_room_is_used_up(tmp_path: Path, limits: Limits) -> None:
    phone = Phone(part_s=300)
    told = asked(tmp_path, phone, 200, limits)
    assert 1 <= len(told.parts) < 4
    assert told.problem is None


@pytest.mark.parametrize(("seconds", "parts"), [(1500, 2), (1700, 3)])
def test_speed_is_asked_in_the_first_half_or_in_another_run(tmp_path: Path, seconds: float, parts: int) -> None:
    told = asked(tmp_path, Phone(part_s=400), 74, Limits(seconds), control=True)
    assert len(told.parts) == parts
    assert (told.speed is not None) == (parts == 3)


# ---- What comes back ------------------------------------------------------------------------------------------------

ITEMS = 40


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """What a session left."""
    (tmp_path / "made").mkdir()
    packed = packed_in(tmp_path / "made", ITEMS)
    write_zip(packed, "package", tmp_path / "p.zip")
    phone = Phone(artifact=artifact_of(question_in(tmp_path / "made", ITEMS).bundle.manifest), part_s=300)
    done = phone(Given((tmp_path / "p.zip").read_bytes(), None, run_spec(packed, 0)))
    assert done.files is not None
    return dict(done.files)


def job_of(files: dict[str, bytes]) -> str:
    return str(json.loads(files[TOLD])["job"])


def read(archive: bytes, job: str, tmp_path: Path) -> returned.Returned:
    (tmp_path / "artifacts.zip").write_bytes(archive)
    return read_returned(tmp_path / "artifacts.zip", job, 0, workload_of(ITEMS), tmp_path)


def test_what_a_session_left_is_read(files: dict[str, bytes], tmp_path: Path) -> None:
    found = read(archived(files), job_of(files), tmp_path)
    assert sum(len(result.answers) for result in found.results) == ITEMS


def changed(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    return files | {TOLD: json.dumps(json.loads(files[TOLD]) | changes).encode()}


def first_part(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    parts = json.loads(files[TOLD])["parts"]
    return changed(files, parts=[parts[0] | changes, *parts[1:]])


def twice(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO(archived(files))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(f"elsewhere/{TOLD}", files[TOLD])
    return content.getvalue()


def bomb(files: dict[str, bytes]) -> bytes:
    packed = gzip.compress(bytes(50 << 20))
    return archived(first_part(files | {"part-0.jsonl.gz": packed}, sha256=digest.of_bytes(packed)))


def encrypted(files: dict[str, bytes]) -> bytes:
    content = bytearray(archived(files))
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(magic, start)) >= 0:
            struct.pack_into("<H", content, start + place, 1)
            start += 4
    return bytes(content)


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "no zip": (lambda _: b"PK nonsense", "can't be read"),
    "cut": (lambda files: archived(files)[:-200], "can't be read"),
    "encrypted": (encrypted, "can't be read"),
    "empty": (lambda _: archived({}), f"left no {TOLD}"),
    "twice": (twice, "comes twice"),
    "not JSON": (lambda files: archived(files | {TOLD: b"{"}), "not what a session writes"),
    "another key": (lambda files: archived(changed(files, more=1)), "not what a session writes"),
    "too large": (lambda files: archived(files | {TOLD: b" " * (17 << 20)}), "larger than 16 MB"),
    "no facts": (lambda files: archived(changed(files, facts=None)), "a phone that nothing is told of"),
    "another job": (lambda files: archived(changed(files, job="b" * 64)), "of another job"),
    "another digest": (lambda files: archived(first_part(files, sha256=SHA)), "otherwise than it was written"),
    "another part": (lambda files: archived(first_part(files, first=1)), "not the one that was asked"),
    "a path": (lambda files: archived(first_part(files, name="../x")), "not what a session writes"),
    "too many": (lambda files: archived(first_part(files, count=900)), "not the one that was asked"),
    "a bomb": (bomb, "is larger than"),
    "part missing": (lambda files: archived({TOLD: files[TOLD]}), "left no part-0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_archives_that_are_not_what_they_say(files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    made, said = HOSTILE[name]
    with pytest.raises(DeviceError, match=said):
        read(made(files), job_of(files), tmp_path)


def test_nothing_is_unpacked_by_an_archive_s_own_names(files: dict[str, bytes], tmp_path: Path) -> None:
    content = io.BytesIO(archived(files))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("../../../../escaped", b"x")
        archive.writestr("/tmp/escaped-by-slmc-test", b"x")
    before = set(tmp_path.parent.rglob("*"))
    read(content.getvalue(), job_of(files), tmp_path)
    new = {path.name for path in set(tmp_path.parent.rglob("*")) - before}
    assert new <= {"artifacts.zip", "part.jsonl", "part.gz"}


def test_a_part_that_answers_other_items_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    lines = gzip.decompress(files["part-0.jsonl.gz"]).replace(b'"task/3"', b'"task/999"')
    packed = gzip.compress(lines)
    other = first_part(files | {"part-0.jsonl.gz": packed}, sha256=digest.of_bytes(packed), size=len(lines))
    with pytest.raises(RunnerError, match="no item is called 'task/999'"):
        read(archived(other), job_of(files), tmp_path)
