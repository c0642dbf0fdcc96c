"""Ray and Tune still have what we take of their private parts: one contract each."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.tune.experiment import Trial

from sweep.cluster import ray_internals


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
