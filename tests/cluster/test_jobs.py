"""What of a job can be told without a cluster: what travels, what is shown, how it ends, what nodes have to install."""

import asyncio
import contextlib
import http.server
import io
import json
import socket
import threading
import types
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import ray
from packaging.specifiers import SpecifierSet
from rich.console import Console
from typer.testing import CliRunner

from sweep import cli
from sweep.cluster import crew, jobs, nodes, packaging
from sweep.cluster.address import Where
from sweep.common.errors import InputError
from sweep.networks.conv.native import build
from sweep.space import search_space
from sweep.store.rows import Store


@pytest.fixture
def space(tmp_path: Path) -> search_space.SearchSpace:
    path = tmp_path / "small.yaml"
    path.write_text("{settings: {steps: 3}, axes: {seed: 2}}")
    return search_space.load(path)


@pytest.mark.parametrize("store", ["results", "./results", "../elsewhere"])
def test_a_folder_of_this_machine_does_not_travel(store: str, space: search_space.SearchSpace) -> None:
    with pytest.raises(InputError, match=rf"--store {store}: the cluster .* has no such folder.*s3://"):
        jobs.check_travels([space], store)


@pytest.mark.parametrize("store", ["s3://bucket/prefix", "gs://bucket", "/shared/results", "file:///shared/results"])
def test_what_the_cluster_can_see_travels(store: str, space: search_space.SearchSpace) -> None:
    jobs.check_travels([space], store)


@pytest.mark.parametrize("dataset", ["folder:/data/shapes", "npz:/data/shapes.npz"])
def test_files_of_this_machine_do_not_travel(dataset: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"{{settings: {{steps: 3, dataset: '{dataset}'}}, axes: {{seed: 2}}}}")
    with pytest.raises(InputError, match="are not sent with a job"):
        jobs.check_travels([search_space.load(path)], "s3://bucket")


def test_trackers_that_write_to_a_folder_do_not_travel_and_servers_do(tmp_path: Path) -> None:
    path = tmp_path / "tracked.yaml"
    path.write_text("{settings: {steps: 3}, axes: {seed: 2}, tracking: {mlflow: 'http://tracker:5000', wandb: mine}}")
    jobs.check_travels([search_space.load(path)], "s3://bucket")
    path.write_text("{settings: {steps: 3}, axes: {seed: 2}, tracking: {tensorboard: logs}}")
    with pytest.raises(InputError, match=r"tracking: tensorboard writes to .*logs"):
        jobs.check_travels([search_space.load(path)], "s3://bucket")


def shown() -> tuple[jobs._Shown, io.StringIO]:
    file = io.StringIO()
    return jobs._Shown(Console(file=file)), file


def test_a_log_is_shown_once_though_the_connection_breaks() -> None:
    show, file = shown()
    show("one\n")
    show("two\nth")
    show.rewind()
    show("one\ntwo\n")
    assert file.getvalue() == "one\ntwo\nth"
    show("three\n")
    assert file.getvalue() == "one\ntwo\nthree\n"
    show("one\ntwo\nthree\nfour\n", whole=True)
    assert file.getvalue() == "one\ntwo\nthree\nfour\n"


def test_the_answer_of_a_job_is_the_object_that_a_launch_prints() -> None:
    show, _ = shown()
    show('{"name": "a", "runs": 2, "trained": 2, "report": null}\nlast words {"x": 1}\n{"other": 1}\n{broken\n')
    assert show.answer() == {"name": "a", "runs": 2, "trained": 2, "report": None}
    assert shown()[0].answer() is None


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("FAILED", -9, 137),
        ("STOPPED", None, 143),
    ],
)
def test_the_exit_status_is_that_of_the_job(status: str, code: int | None, expected: int) -> None:
    assert jobs._exit_status(types.SimpleNamespace(status=status, driver_exit_code=code)) == expected


def test_a_log_whose_connection_died_in_silence_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        asked = 0

        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            self.asked += 1
            yield "one\n"
            if self.asked == 1:
                await asyncio.sleep(60)  # nothing comes any more, and nothing is closed
            yield "two\n"

        def get_job_info(self, job_id: str) -> types.SimpleNamespace:
            return types.SimpleNamespace(
                status="RUNNING" if self.asked == 1 else "SUCCEEDED", driver_exit_code=0, message=None
            )

        def get_job_logs(self, job_id: str) -> str:
            return "one\ntwo\n"

    monkeypatch.setattr(jobs, "LOG_TIMEOUT", 0.2)
    monkeypatch.setattr(jobs, "POLL", 0.01)
    there, file = object.__new__(jobs.Cluster), io.StringIO()
    there.address, there.client = "http://there", Client()
    assert there._followed("job", Console(file=file)) == (0, None)
    assert file.getvalue() == "one\ntwo\n" and there.client.asked == 2


def test_a_token_that_runs_out_while_a_job_is_followed_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            yield "one\n"
            raise ray.exceptions.AuthenticationError("InvalidAuthToken: the token is refused")

        def get_job_info(self, job_id: str) -> None:
            raise ray.exceptions.AuthenticationError("InvalidAuthToken: the token is refused")

    monkeypatch.setattr(jobs, "DASHBOARD_TIMEOUT", 0.05)
    monkeypatch.setattr(jobs, "POLL", 0.01)
    there = object.__new__(jobs.Cluster)
    there.address, there.client = "http://there", Client()
    with pytest.raises(InputError, match=r"rejects this token.*job 17 may still be running"):
        there._followed("17", Console(file=io.StringIO()))


@pytest.mark.parametrize(("status", "expected"), [("STOPPED", 0), ("RUNNING", 1)])
def test_a_job_that_takes_long_to_end_is_not_called_stopped(
    status: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.Job("17", "width", status, None, None)
    monkeypatch.setattr(cli, "_cluster", lambda address: types.SimpleNamespace(stop=lambda job_id: job))
    done = CliRunner().invoke(cli.app, ["stop", "17", "--address", "http://there"])
    assert done.exit_code == expected
    assert ("takes long to end" in done.stderr) == bool(expected) and f"17: {status}" in done.stdout


def test_search_spaces_of_one_name_travel_side_by_side() -> None:
    names = jobs._names([Path("a/width.yaml"), Path("b/width.yaml")])
    assert len(set(names)) == 2
    assert [Path(name).stem for name in names] == ["width", "width"]


def test_nodes_install_what_one_of_them_lacks_at_our_version_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"torch": "2.9.0+cpu", "numpy": "2.3.1", "rich": "14.0", "ray": "2.60.0"}
    monkeypatch.setattr("importlib.metadata.version", ours.__getitem__)
    wanted = {name: SpecifierSet(text) for name, text in {"torch": ">=2.6", "numpy": ">=2", "rich": ">=13"}.items()}
    wanted["ray"] = SpecifierSet(">=2.52")
    full = {"torch": "2.8.0+cu128", "numpy": "2.0", "rich": "13.7", "ray": "2.60.0"}
    assert packaging.lacking([full, full], wanted) == []
    assert packaging.lacking([full, full | {"numpy": "1.26.4"}], wanted) == ["numpy==2.3.1"]
    assert packaging.lacking([full | {"torch": None}, full | {"ray": None}], wanted) == ["torch==2.9.0"]


def test_our_packages_travel_as_they_run_here() -> None:
    folders = [Path(folder) for folder in packaging.runtime_env([], Console(file=io.StringIO()))["py_modules"]]
    assert [folder.name for folder in folders] == ["sweep", "analysis"]
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_native_kernels_travel_with_their_sources_though_git_ignores_them(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    sent = packaging.runtime_env([], Console(file=io.StringIO()))
    [folder] = [folder for folder in sent["py_modules"] if Path(folder).name == "sweep"]
    create_package(folder, tmp_path / "sent.zip", True, include_parent_dir=True, excludes=sent["excludes"])
    there = {Path(name).name for name in zipfile.ZipFile(tmp_path / "sent.zip").namelist() if "/conv/native/" in name}
    assert {*build.SOURCES, "build.py"} <= there
    here = {build.file_name(variant) for variant in build.variants()}
    assert {name for name in there if name.endswith(".so")} == {name for name in here if (build.HERE / name).is_file()}


GOOD = {"trainer": nodes.TRAINER_VERSION, "file": True, "cuda": None, "native": None}


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ({"error": "boom"}, "cannot work for us: n2: boom"),
        ({"trainer": None, "why": "No module named 'sweep'"}, "cannot be imported on n2.*--install"),
        ({"trainer": -1}, "another version of sweep is on n2"),
        ({"file": False}, "n2 cannot see"),
        ({"cuda": "PyTorch 2.9.0+cpu there is built without CUDA"}, "n2 cannot train on a GPU.*--gpus-per-array 0"),
    ],
)
def test_a_node_that_cannot_train_for_us_is_named_with_the_reason(
    look: dict[str, object], said: str, tmp_path: Path
) -> None:
    nodes._check({"n1": GOOD, "n3": GOOD}, Where("auto"), Store(tmp_path))
    with pytest.raises(InputError, match=said):
        nodes._check({"n1": GOOD, "n2": look if "error" in look else GOOD | look}, Where("auto"), Store(tmp_path))


def test_a_worker_that_does_not_see_the_store_says_so_and_leaves_the_array_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "AWAY", 0.0)
    worker = crew.Crew(Where("auto"), "cpu", 1, 0, witness=str(tmp_path / "store" / ".launch"))
    with pytest.raises(OSError, match="does not see the folder of the store"):
        worker.check_here()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".launch").touch()
    worker.check_here()


def test_a_refused_launch_leaves_no_store_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "store")
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError), nodes._witness(store) as witness:
        assert witness is not None and Path(witness).exists()
        raise InputError("refused")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, dict[str, str]], str]]:
    """Starts something that answers every request so, where a Ray dashboard would be; returns its address."""
    with contextlib.ExitStack() as open_servers:

        def serve(status: int, answer: dict[str, str]) -> str:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(json.dumps(answer).encode())

                def log_message(self, *_: object) -> None:
                    pass

            server = open_servers.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            open_servers.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


def test_another_version_of_ray_is_said_with_both(dashboard: Callable[[int, dict[str, str]], str]) -> None:
    address = dashboard(200, {"version": "4", "ray_version": "2.53.0", "ray_commit": ""})
    with pytest.raises(InputError, match=rf"the cluster runs Ray 2\.53\.0, and this machine Ray {ray.__version__}"):
        jobs.Cluster(Where(address))


@pytest.mark.parametrize(
    ("status", "said"), [(401, "requires a token, but none was found"), (403, "rejects this token")]
)
def test_a_dashboard_that_refuses_us_is_one_message(
    status: int, said: str, dashboard: Callable[[int, dict[str, str]], str]
) -> None:
    with pytest.raises(InputError, match=said):
        jobs.Cluster(Where(dashboard(status, {})))


def test_what_is_no_dashboard_is_one_message(dashboard: Callable[[int, dict[str, str]], str]) -> None:
    with pytest.raises(InputError, match="--address"):
        jobs.Cluster(Where(dashboard(200, {"hello": "world"})))
    with pytest.raises(InputError, match="no Ray dashboard answers there"):
        jobs.Cluster(Where("http://127.0.0.1:9"))


def test_a_cluster_of_another_version_that_is_joined_is_said_with_both() -> None:
    text = "Version mismatch: The cluster was started with:\n Ray: 2.53.0\n Python: 3.11.9\nThis process: Ray: 2.60.0"
    said = nodes._words(RuntimeError(text))
    assert "2.53.0" in said and "2.60.0" in said and "\n" not in said


def node(name: str, **resources: float) -> dict[str, object]:
    about = {"NodeID": name, "NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1", "Alive": True}
    return about | {"Resources": resources}


@pytest.mark.parametrize(
    ("there", "asked", "device", "gpus", "able"),
    [
        ([node("head"), node("n1", CPU=4)], None, "cpu", 0, ["n1"]),
        ([node("n1", CPU=4), node("n2", CPU=4, GPU=2)], None, "cuda", 1, ["n2"]),
        ([node("n1", CPU=4), node("n2", CPU=4, GPU=2)], 0.5, "cuda", 0.5, ["n2"]),
        ([node("n1", CPU=4), node("n2", CPU=4, GPU=2)], 0, "cpu", 0, ["n1", "n2"]),
        ([node("n1", CPU=1, GPU=2)], None, "cuda", 1, []),
        ([node("head")], 1, "cuda", 1, []),
    ],
)
def test_the_device_is_what_the_cluster_has_or_what_was_asked_for(
    there: list[dict[str, object]],
    asked: float | None,
    device: str,
    gpus: float,
    able: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    def visited(nodes: list[dict[str, object]], *_: object) -> dict[object, dict[str, object]]:
        seen.extend(each["NodeID"] for each in nodes)
        return {each["NodeID"]: GOOD for each in nodes}

    monkeypatch.setattr(nodes, "_alive", lambda: there)
    monkeypatch.setattr(nodes.node_probe, "visit", visited)
    where = Where("auto", gpus_per_array=asked, cpus_per_array=2)
    found = nodes._crew_there(where, Store("s3://bucket/store"), Console(file=io.StringIO()))
    assert (found.device, found.gpus, found.resources) == (device, gpus, {"cpu": 2, "gpu": gpus})
    assert seen == able


def test_a_dashboard_that_never_answers_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "REQUEST_TIMEOUTS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(InputError, match="no Ray dashboard answers"):
        jobs.Cluster(Where(f"http://127.0.0.1:{silent.getsockname()[1]}"))
