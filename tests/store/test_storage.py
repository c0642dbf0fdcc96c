"""A store's files on a disk and in an object store: whole or not at all, and tried again while it may help."""

import errno
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.object_store import Faults, environment, proxy, serving, serving_gs

from sweep.common.atomic_files import owner_is_dead, replacing
from sweep.common.errors import InputError
from sweep.common.host import is_alive, started_at
from sweep.store import storage
from sweep.store.storage import Place


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture(scope="module")
def gs_port() -> Iterator[int]:
    with serving_gs() as port:
        yield port


@pytest.fixture(params=["folder", "s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, port: int, gs_port: int) -> Iterator[Place]:
    if request.param == "folder":
        yield Place(tmp_path / "store")
        return
    with environment(f"http://127.0.0.1:{port if request.param == 's3' else gs_port}"):
        yield Place(f"{request.param}://bucket/{tmp_path.name}")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries for half a second, so that what never passes is given up in a test's time."""
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(storage, "PAUSES", (0.05,))


# The same on both


def test_what_is_written_is_read_listed_by_name_replaced_and_removed(place: Place) -> None:
    assert place.files("runs", ".parquet") == []
    for name in ("runs/b.parquet", "runs/a.parquet", "runs/c.json", "curves/a.parquet"):
        place.write(name, name.encode())
    assert place.files("runs", ".parquet") == ["runs/a.parquet", "runs/b.parquet"]
    assert place.read("runs/c.json") == b"runs/c.json" and place.read("runs/c.json", 4) == b"runs"
    assert place.read("runs/c.json", 1000) == b"runs/c.json"
    place.write("runs/a.parquet", b"")
    assert place.read("runs/a.parquet") == b""
    place.remove("runs/a.parquet")
    place.remove("runs/a.parquet")
    assert place.files("runs", ".parquet") == ["runs/b.parquet"]
    for size in (None, 4):
        with pytest.raises(FileNotFoundError):
            place.read("runs/a.parquet", size)


def test_a_large_file_comes_back_whole(place: Place) -> None:
    content = os.urandom(12 * 2**20)
    place.write("checkpoints/large", memoryview(content))
    assert place.read("checkpoints/large") == content


def test_a_folder_of_files_is_put_below_a_name(place: Place, tmp_path: Path) -> None:
    (tmp_path / "report" / "figures").mkdir(parents=True)
    (tmp_path / "report" / "a.md").write_text("a")
    (tmp_path / "report" / "figures" / "b.png").write_text("b")
    place.upload(tmp_path / "report", "reports/x")
    assert place.read("reports/x/a.md") == b"a" and place.read("reports/x/figures/b.png") == b"b"


def test_temporary_files_are_not_listed(place: Place) -> None:
    place.write("runs/.a.123.parquet", b"half")
    assert place.files("runs", ".parquet") == []


# Addresses


@pytest.mark.parametrize("address", ["ftp://x/y", "http://x", "s3://", "gs://?x=1"])
def test_an_address_of_another_kind_or_without_a_bucket_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"^--store "):
        Place(address)


def test_folders_and_file_addresses_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        Place("x").address == Place(f"file://{tmp_path}/x").address == Place(Path("x")).address == str(tmp_path / "x")
    )


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST"])
def test_an_endpoint_with_a_secret_is_refused_and_not_shown(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "gs" if variable.startswith("STORAGE") else "s3"
    with environment("http://localhost:1"):
        monkeypatch.setenv(variable, "http://me:hideme@localhost:1")
        with pytest.raises(InputError, match=f"^{variable} ") as error:
            Place(f"{kind}://bucket/x").read("a")
    assert "hideme" not in str(error.value)


def test_options_of_an_address_reach_the_file_system_and_are_no_part_of_a_file_s_address(port: int) -> None:
    with environment("http://localhost:1"):
        place = Place(f"s3://bucket/options/?request_timeout=60&scheme=http&endpoint_override=127.0.0.1:{port}")
        place.write("runs/a", b"1")
        assert place.path("runs/a") == "s3://bucket/options/runs/a"
    with environment(f"http://127.0.0.1:{port}"):
        assert Place("s3://bucket/options").read("runs/a") == b"1"


def test_spellings_of_one_address_are_one_store(port: int) -> None:
    with environment(f"http://127.0.0.1:{port}"):
        Place("S3://bucket//one//").write("a", b"1")
        assert Place("s3://bucket/one").read("a") == b"1"
        for other in ("s3://bucket/one#1", "s3://bucket/one#2"):
            with pytest.raises(InputError, match="fragment"):
                Place(other)


@pytest.mark.parametrize(("kind", "words"), [("s3", "NO_SUCH_BUCKET"), ("gs", "404")])
def test_a_bucket_that_is_not_there_is_said_and_not_waited_for(kind: str, words: str, port: int, gs_port: int) -> None:
    with environment(f"http://127.0.0.1:{port if kind == 's3' else gs_port}"):
        started = time.monotonic()
        with pytest.raises(InputError, match="no such bucket"):
            Place(f"{kind}://nothing/x").files("runs", ".parquet")
        with pytest.raises(OSError, match=words):
            Place(f"{kind}://nothing/x").write("a", b"")
        assert time.monotonic() - started < storage.RETRY_SECONDS / 5


# What may pass


def test_a_local_store_that_goes_away_is_waited_for_and_never_made_anew(tmp_path: Path) -> None:
    folder, away = tmp_path / "store", tmp_path / "away"
    place = Place(folder)
    place.write("runs/a", b"1")
    folder.rename(away)

    def back() -> None:
        time.sleep(0.6)
        assert not folder.exists()
        away.rename(folder)

    thread = threading.Thread(target=back)
    thread.start()
    assert place.read("runs/a") == b"1"
    thread.join()
    folder.rename(away)
    thread = threading.Thread(target=back)
    thread.start()
    place.write("runs/b", b"2")
    assert place.files("runs", "") == ["runs/a", "runs/b"]
    thread.join()


def test_a_store_that_a_worker_first_asks_for_while_it_is_away_is_not_made_anew_either(tmp_path: Path) -> None:
    folder, away = tmp_path / "store", tmp_path / "away"
    copied = pickle.dumps(Place(folder))
    place = Place(folder)
    place.write("runs/a", b"1")
    folder.rename(away)
    for one in (Place(folder, there=True), pickle.loads(pickle.dumps(place))):
        with pytest.raises(OSError, match="is gone"):
            one.write("runs/b", b"2", retry_seconds=0)
        assert not folder.exists()
    pickle.loads(copied).write("runs/c", b"3")
    assert folder.exists(), "a store that never was is made"


@pytest.mark.usefixtures("hurried")
def test_a_local_store_that_stays_away_is_an_error_in_the_end(tmp_path: Path) -> None:
    place = Place(tmp_path / "store")
    place.write("runs/a", b"1")
    (tmp_path / "store").rename(tmp_path / "away")
    for operation in (
        lambda: place.write("runs/b", b""),
        lambda: place.read("runs/a"),
        lambda: place.files("runs", ""),
    ):
        with pytest.raises(FileNotFoundError):
            operation()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("number", "tries"), [(errno.EACCES, 1), (errno.EIO, 3), (errno.ESTALE, 3), (errno.ENOSPC, 3)])
def test_errors_that_may_pass_are_tried_again_and_others_are_not(
    number: int, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, tried = Place(tmp_path), []
    monkeypatch.setattr(storage, "PAUSES", (0.01,))

    def failing(path: Path, content: bytes) -> None:
        tried.append(path)
        if len(tried) < 3:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(place, "_write_local", failing)
    if tries == 1:
        with pytest.raises(OSError, match=os.strerror(number)):
            place.write("a", b"")
    else:
        place.write("a", b"")
    assert len(tried) == tries


@pytest.mark.usefixtures("hurried")
def test_a_full_disk_is_said_once_leaves_nothing_behind_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, heard = Place(tmp_path), []
    place.on_wait = heard.append
    place.write("runs/a", b"whole")

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/runs/a'$"):
            place.write("runs/a", b"other")
        assert heard == [f"{tmp_path}: No space left on device; waiting for it"]
        with pytest.raises(OSError, match="No space left"):
            place.write("leases/a", b"other", retry_seconds=0.1)
        assert len(heard) == 1, "what is not waited for long is not told"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]
    assert place.read("runs/a") == b"whole"


@pytest.mark.parametrize("kind", ["s3", pytest.param("gs", marks=pytest.mark.slow)])
@pytest.mark.integration
def test_faults_between_us_and_the_object_store_lose_nothing(
    kind: str, port: int, gs_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.05,))
    faults = Faults(seed=1, errors=0.15, drops=0.1, late=0.1, slow=0.1)
    with proxy(port if kind == "s3" else gs_port, faults) as (endpoint, _), environment(endpoint):
        place = Place(f"{kind}://bucket/faults")
        contents = {f"runs/{number}.x": os.urandom(200 + number) for number in range(10)}
        for name, content in contents.items():
            place.write(name, content)
        assert place.files("runs", ".x") == sorted(contents)
        assert {name: place.read(name) for name in contents} == contents
        for name in list(contents)[:3]:
            place.remove(name)
        assert place.files("runs", ".x") == sorted(list(contents)[3:])
    assert min(faults.seen[kind] for kind in ("error", "drop", "late", "slow")) > 0


@pytest.mark.integration
def test_an_object_store_that_is_down_for_a_while_is_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.2,))
    faults = Faults(seed=2)
    with proxy(port, faults) as (endpoint, _), environment(endpoint):
        place = Place("s3://bucket/down")
        place.write("a", b"1")
        faults.down = True
        threading.Timer(3, lambda: setattr(faults, "down", False)).start()
        place.write("a", b"2")
        assert not faults.down and place.read("a") == b"2"


@pytest.mark.usefixtures("hurried")
@pytest.mark.integration
def test_an_object_store_that_stays_down_is_an_error_in_the_end(port: int) -> None:
    faults = Faults(seed=3)
    with proxy(port, faults) as (endpoint, _), environment(endpoint):
        faults.down = True
        with pytest.raises(OSError, match="500"):
            Place("s3://bucket/down").write("a", b"1")


def test_a_small_file_is_one_put(port: int) -> None:
    with proxy(port, Faults(seed=4)) as (endpoint, requests), environment(endpoint):
        Place("s3://bucket/one").write("runs/a", b"1")
        assert [request.split()[0] for request in requests] == ["PUT"]


# Temporaries


@pytest.mark.integration
def test_what_a_dead_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("runs/a.parquet", b"whole")
    program = (
        "import os, sys; from pathlib import Path; from sweep.common.atomic_files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "runs" / "a.parquet")], check=False)
    [left] = (tmp_path / "runs").glob(".*")
    assert owner_is_dead(left)
    with replacing(tmp_path / "runs" / "a.parquet") as temporary:
        temporary.write_bytes(b"new")
        place.clear_temporaries("runs")
        assert temporary.exists() and not left.exists()
    assert place.read("runs/a.parquet") == b"new"
    without_suffix = left.with_name(left.stem)
    without_suffix.touch()
    assert owner_is_dead(without_suffix)
    elsewhere = tmp_path / "runs" / ".a.0123456789ab-1-89abcdef.parquet"
    elsewhere.write_bytes(b"of another host")
    assert not owner_is_dead(elsewhere)


@pytest.mark.integration
def test_the_dead_and_the_living_are_told_apart() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(child.pid) and started_at(child.pid) is not None
    child.kill()
    deadline = time.monotonic() + 10
    while is_alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child.pid), "a zombie is dead"
    child.communicate()
    assert not is_alive(child.pid)
