"""Two launches on one store share the work: a lease is held while its process lives, and by nobody after."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.common.host import started_at, this_host
from sweep.store import leases
from sweep.store.leases import held_elsewhere, taken
from sweep.store.storage import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "store")


def write(place: Place, **changed: object) -> None:
    lease = {"host": this_host(), "pid": os.getppid(), "started": started_at(os.getppid()), "expires": time.time() + 30}
    place.write("leases/a.json", json.dumps(lease | changed).encode())


def test_a_lease_is_held_while_the_block_runs_and_gone_afterwards(place: Place) -> None:
    with taken(place, "a") as mine:
        assert mine
        kept = json.loads(place.read("leases/a.json"))
        assert kept.keys() == {"host", "pid", "started", "expires"} and kept["pid"] == os.getpid()
        assert 25 < kept["expires"] - time.time() <= 30
    assert place.files("leases", "") == []


def test_a_lease_of_another_living_process_is_left_to_it(place: Place) -> None:
    write(place)
    assert held_elsewhere(place, "a") and not held_elsewhere(place, "b")
    before = place.read("leases/a.json")
    with taken(place, "a") as mine:
        assert not mine
    assert place.read("leases/a.json") == before


@pytest.mark.parametrize(
    "changed",
    [{"pid": 2**22 - 3}, {"started": "1"}, {"expires": 0.0}, {"host": "0" * 12, "expires": 0.0}],
    ids=["dead", "another process with its number", "no sign of life", "no sign of life on another host"],
)
def test_a_lease_of_the_dead_is_taken_over_at_once(place: Place, changed: dict[str, object]) -> None:
    write(place, **changed)
    with taken(place, "a") as mine:
        assert mine


def test_a_process_of_another_host_is_believed_until_its_lease_expires(place: Place) -> None:
    write(place, host="0" * 12, pid=2**22 - 3)
    assert held_elsewhere(place, "a")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 1}', b"\xff\xfe", b"[" * 5000])
def test_a_lease_that_cannot_be_read_holds_nothing(place: Place, content: bytes) -> None:
    place.write("leases/a.json", content)
    assert not held_elsewhere(place, "a")


@pytest.mark.integration
def test_a_container_that_shares_the_hosts_name_is_another_host() -> None:
    program = [sys.executable, "-c", "from sweep.common.host import this_host; print(this_host())"]
    assert subprocess.check_output(program, text=True).strip() == this_host()
    own = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", *program], capture_output=True, text=True)
    if own.returncode:
        pytest.skip(f"no process namespace can be made here: {own.stderr.strip()}")
    assert own.stdout.strip() != this_host()


def test_a_long_lease_shows_signs_of_life(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.05)
    with taken(place, "a"):
        first = json.loads(place.read("leases/a.json"))["expires"]
        deadline = time.monotonic() + 10
        while json.loads(place.read("leases/a.json"))["expires"] == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(place.read("leases/a.json"))["expires"] > first


@pytest.mark.integration
def test_a_killed_process_loses_its_lease_at_once(place: Place) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from sweep.store.leases import taken; from sweep.store.storage import Place\n"
        "with taken(Place(Path(sys.argv[1])), 'a'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, place.address], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert held_elsewhere(place, "a")
        other.kill()
        other.wait()
        assert not held_elsewhere(place, "a")
    with taken(place, "a") as mine:
        assert mine


def test_a_store_that_cannot_keep_leases_stops_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, "write", full)
    with taken(place, "a") as mine:
        assert mine


def test_leases_that_nobody_holds_any_more_are_removed(place: Place) -> None:
    write(place)
    for name, changed in {"dead": {"pid": 2**22 - 3}, "late": {"expires": 0.0}, "away": {"host": "0" * 12}}.items():
        write(place, **changed)
        place.write(f"leases/{name}.json", place.read("leases/a.json"))
    write(place)
    leases.tidy(place)
    assert place.files("leases", "") == ["leases/a.json", "leases/away.json"]
    with taken(place, "mine"):
        leases.tidy(place)
        assert "leases/mine.json" in place.files("leases", "")
