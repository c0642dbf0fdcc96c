"""Ray and Tune still have what we take of their private parts: one contract each."""

import importlib.metadata
import inspect
import mmap
import signal
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.tune.experiment import Trial

from sweep.cluster import ray_internals


def test_the_installed_ray_is_one_that_was_tried_and_the_oldest_is_the_oldest_that_may_be_installed() -> None:
    assert ray_internals.caution() is None, "the tests pass? then TRIED can say so"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"ray[default,tune]>={ray_internals.TRIED[0]}" in project["dependencies"]


@pytest.mark.parametrize(
    ("version", "tried"),
    [
        *(("2.52.0", True), ("2.52.1", True), ("2.60.0", True), ("2.60.7", True), ("2.60.0rc1", True)),
        *(("2.51.2", False), ("2.61.0", False), ("2.100.0", False), ("3.0.0.dev0", False), ("1.60.0", False)),
    ],
)
def test_a_ray_of_a_version_that_was_not_tried_is_named_before_a_launch(
    version: str, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    said = ray_internals.caution()
    assert (said is None) is tried
    if said:
        assert said.startswith(f"Ray {version} is installed; sweep was tested with Ray 2.52 to 2.60. If this launch")
        assert "\n" not in said and "pip install 'ray[default,tune]==2.60.*'" in said


def test_an_error_of_ray_that_tune_does_not_know_becomes_that_of_an_actor_and_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager

    seen: list[Exception] = []
    original = RayActorManager._actor_task_failed
    assert list(inspect.signature(original).parameters) == ["self", "tracked_actor_task", "exception"]

    def recorded(self: object, tracked_actor_task: object, exception: Exception) -> None:
        seen.append(exception)

    monkeypatch.setattr(RayActorManager, "_actor_task_failed", recorded)
    actor, memory = ray.exceptions.RayActorError(), ray.exceptions.OutOfMemoryError("the node")
    with ray_internals.every_death_is_one_trials_own():
        for error in (actor, memory, ValueError("ours")):
            RayActorManager._actor_task_failed(SimpleNamespace(), None, error)
    assert [type(error) for error in seen] == [type(actor), ray.exceptions.RayActorError, ValueError]
    assert "the node" in str(seen[1]) and RayActorManager._actor_task_failed is recorded


def test_tune_keeps_the_failures_of_a_trial_in_a_file_under_headings(tmp_path: Path) -> None:
    assert isinstance(inspect.getattr_static(Trial, "error_file"), property)
    assert "Failure # " in inspect.getsource(Trial) and "(occurred at " in inspect.getsource(Trial)
    file = tmp_path / "error.txt"
    file.write_text("Failure # 1 (occurred at 2026)\nfirst\nFailure # 2 (occurred at 2026)\nTraceback\nlast\n")
    assert ray_internals.last_failure(SimpleNamespace(error_file=str(file))) == ["Traceback", "last"]
    assert ray_internals.last_failure(SimpleNamespace(error_file=None)) == ["unknown"]


def test_tune_keeps_numbers_of_a_trial_which_can_be_forgotten() -> None:
    trial = Trial("array", stub=True)
    trial.update_last_result({"share": 0.5, "training_iteration": 1, "time_total_s": 1.0})
    assert trial.metric_analysis
    ray_internals.forget_numbers(trial)
    assert not trial.metric_analysis and not trial.metric_n_steps


def test_a_callback_is_pickled_as_tunes_own() -> None:
    make, arguments = ray_internals.pickled_callback()
    assert isinstance(make(*arguments), ray.tune.Callback)


def test_ray_has_a_state_that_knows_draining_nodes() -> None:
    assert callable(ray._private.state.state.get_draining_nodes)


def test_the_question_to_a_head_is_one_of_rays_services() -> None:
    from ray.core.generated import gcs_service_pb2

    _, service, method = ray_internals.ASK.split("/")
    found = gcs_service_pb2.DESCRIPTOR.services_by_name[service.rpartition(".")[2]]
    assert found.full_name == service and method in found.methods_by_name


def test_ray_says_in_these_words_that_a_node_ran_out_of_memory(tmp_path: Path) -> None:
    raylet = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    with raylet.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as words:
        assert any(words.find(each.encode()) >= 0 for each in ray_internals.OUT_OF_MEMORY)
    file = tmp_path / "error.txt"
    for text, expected in (("killed due to the node running low on memory. x", True), ("The actor died", False)):
        file.write_text(f"Failure # 1 (occurred at 2026)\n{text}\n")
        assert ray_internals.ran_out_of_memory(SimpleNamespace(error_file=str(file))) is expected


def test_a_trial_of_tune_has_a_config_and_counts_its_failures() -> None:
    trial = Trial("array", stub=True, config={"array": "a"})
    assert trial.config == {"array": "a"} and trial.num_failures == 0


def test_the_table_of_a_head_takes_what_we_ask_of_it() -> None:
    from ray._raylet import InnerGcsClient
    from ray.experimental import internal_kv

    assert callable(internal_kv.internal_kv_get_gcs_client)
    for name in ("put", "exists", "keys", "del"):
        assert callable(getattr(InnerGcsClient, f"internal_kv_{name}"))


def test_the_client_of_a_dashboard_asks_through_one_method_with_the_options_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.job_submission import JobSubmissionClient

    asked = []

    def answered(self: object, method: str, path: str, **options: object) -> SimpleNamespace:
        asked.append((method, path, options))
        return SimpleNamespace(json=lambda: {"ray_version": "2.60.0"})

    assert list(inspect.signature(JobSubmissionClient._do_request).parameters)[:3] == ["self", "method", "endpoint"]
    assert "**kwargs" in str(inspect.signature(JobSubmissionClient._do_request))
    monkeypatch.setattr(JobSubmissionClient, "__init__", lambda self, address: None)
    monkeypatch.setattr(JobSubmissionClient, "_do_request", answered)
    assert ray_internals.ray_version(ray_internals.job_client("http://there", (1.0, 2.0))) == "2.60.0"
    assert asked == [("GET", "/api/version", {"timeout": (1.0, 2.0)})]


def test_a_cluster_that_takes_no_job_yet_says_so_in_these_words() -> None:
    source = Path(ray.__file__).parent / "dashboard" / "modules" / "job" / "job_head.py"
    assert ray_internals.NO_AGENT in source.read_text()


def test_ray_leaves_the_address_of_the_cluster_that_it_started_last_where_we_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private import utils

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_internals.last_started() is None
    (tmp_path / "ray").mkdir()
    utils.write_ray_address("10.0.0.1:6379", None)
    assert ray_internals.last_started() == "10.0.0.1:6379"


def test_tune_takes_signals_in_one_function_which_gives_an_event_and_only_meanwhile_it_does_not() -> None:
    from ray.tune import tune

    catching = tune._setup_signal_catching
    assert not inspect.signature(catching).parameters
    assert "_setup_signal_catching()" in inspect.getsource(tune.run)
    before = signal.getsignal(signal.SIGUSR1)
    with ray_internals.tune_leaves_signals_alone():
        assert not tune._setup_signal_catching().is_set()
    assert signal.getsignal(signal.SIGUSR1) == before and tune._setup_signal_catching is catching


def test_ray_takes_a_folder_for_its_files() -> None:
    [option] = ray_internals.files_in(Path("/there"))
    assert f'kwargs.pop("{option}", None)' in inspect.getsource(ray._private.worker)


def test_a_node_starts_without_what_does_not_train_by_methods_of_its_own_and_only_meanwhile() -> None:
    from ray._private.node import Node

    names = ("start_api_server", "start_monitor", "start_log_monitor")
    before = {name: getattr(Node, name) for name in names}
    with ray_internals.only_what_trains():
        Node.start_api_server(None, include_dashboard=False, raise_on_failure=False)
        Node.start_monitor(None)
        Node.start_log_monitor(None)
    assert {name: getattr(Node, name) for name in names} == before
    for name in names:
        assert f"self.{name}(" in inspect.getsource(Node)


def test_workers_import_the_modules_that_a_setting_of_ray_names() -> None:
    [(option, settings)] = ray_internals.preloading(["a", "b"]).items()
    assert f'kwargs.pop("{option}", None)' in inspect.getsource(ray._private.worker)
    assert settings == {"preload_python_modules": ["a", "b"]}
    raylet = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    with raylet.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as words:
        assert words.find(b"RAY_preload_python_modules") >= 0


def test_tune_takes_workers_that_wait_by_names_of_its_own_and_only_meanwhile() -> None:
    from ray.air.execution import FixedResourceManager, PlacementGroupResourceManager
    from ray.tune.execution import tune_controller
    from ray.tune.execution.class_cache import _ActorClassCache

    class Trainable:
        pass

    get = _ActorClassCache.get
    with ray_internals.waiting_workers_train():
        cache = _ActorClassCache()
        actor = cache.get(Trainable)
        assert cache.get(Trainable) is actor and actor._default_options.get("runtime_env") is None
        assert tune_controller.PlacementGroupResourceManager is FixedResourceManager
    assert _ActorClassCache.get is get
    assert tune_controller.PlacementGroupResourceManager is PlacementGroupResourceManager
    assert "PlacementGroupResourceManager()" in inspect.getsource(tune_controller.TuneController.__init__)
