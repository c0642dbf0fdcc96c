"""Tells experiment trackers how a sweep went: one record a cell and arm, in batches, when training is over.

A record is known by a key of its own in the tracker, so that launching again updates it, and does nothing where nothing
is new. A tracker that cannot be reached costs a message, never a row.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from sweep import plan
from sweep.common.errors import InputError
from sweep.space.runs import SETTINGS
from sweep.space.search_space import SearchSpace
from sweep.store.earliest import COMPARED
from sweep.store.rows import Store

PACKAGES: Final = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX"}
"""What each tracker is spoken to with."""

PATIENCE: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_INIT_TIMEOUT": "30",
}
"""How long a tracker that does not answer is waited for, unless the environment says otherwise."""

QUIET: Final = {
    "WANDB_SILENT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclasses.dataclass(frozen=True)
class Record:
    """One arm of a cell: its settings and its numbers; `key` is that of the sweep, the cell and the arm."""

    key: str
    name: str
    settings: dict[str, Any]
    metrics: dict[str, float]

    @property
    def digest(self) -> str:
        """Of the numbers: another one, and the tracker has to be told."""
        return hashlib.sha256(json.dumps(sorted(self.metrics.items())).encode()).hexdigest()[:20]


class NotTold(Exception):
    """A tracker was not told, and the same command will not tell it either: the message says what would."""


def check(space: SearchSpace) -> None:
    """Raises InputError where a tracker that is asked for is not installed."""
    for tracker in _wanted(space):
        # Looked for and not imported: that takes seconds, which training need not wait for.
        if importlib.util.find_spec(PACKAGES[tracker]) is None:
            raise InputError(f"{space.name}: tracking: {tracker} is not installed; pip install 'sweep[{tracker}]'")


def track(space: SearchSpace, store: Store) -> list[str]:
    """Brings every tracker of a search space up to date; returns what went wrong, a sentence a tracker."""
    wanted = _wanted(space)
    if not wanted:
        return []
    told: dict[str, Callable[[str, str, list[Record], Store], None]]
    told = {"mlflow": _mlflow, "wandb": _wandb, "tensorboard": _tensorboard}
    found: list[Record] | None = None
    problems = []
    for tracker, where in wanted.items():
        try:
            found = records(space, store) if found is None else found
            with _quiet():
                told[tracker](where, space.name, found, store)
        except NotTold as error:
            problems.append(f"{space.name} was not sent to {tracker} at {where}: {error}; all rows are kept")
        except Exception as error:  # whatever a tracker's library raises, the rows are in the store
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            problems.append(
                f"{space.name} could not be sent to {tracker} at {where} ({words}); all rows are kept, "
                "and once that is mended the same command sends them"
            )
    return problems


def records(space: SearchSpace, store: Store) -> list[Record]:
    """One record for each arm of each cell that has a row: means over seeds, in the order of the grid."""
    run_ids = plan.run_ids(space)
    found = store.read(run_ids, ("run_id", *COMPARED, "test_loss", "train_loss", "train_seconds", "finished_at"))
    number = {place: row for row, place in enumerate(found.places.tolist())}
    columns = {name: found.rows[name].to_pylist() for name in found.rows.column_names if name != "test_correct"}
    made, start = [], 0
    varying = [name for name in space.levels if name not in ("bias", "seed")]
    for levels, members in space.grid():
        for bias in sorted({bias for bias, _ in members}, reverse=True):
            rows = [number[start + i] for i, (b, _) in enumerate(members) if b == bias and start + i in number]
            if rows:
                settings = {name: levels[name] for name in SETTINGS if name in levels and name != "evaluate_every"}
                words = [f"{name}={levels[name]}" for name in varying]
                key = json.dumps([space.name, settings, bias], sort_keys=True)
                made.append(
                    Record(
                        key=hashlib.sha256(key.encode()).hexdigest()[:20],
                        name=" ".join([*words, "with bias" if bias else "without bias"]),
                        settings={"bias": bias, **settings},
                        metrics=_metrics(columns, rows, space.analysis.confidence),
                    )
                )
        start += len(members)
    return made


def _metrics(columns: dict[str, list[Any]], rows: list[int], confidence: float) -> dict[str, float]:
    """Means over the rows; what is missing in all of them, or not finite, is left out."""
    from scipy import stats

    accuracies = np.array([columns["test_accuracy"][row] for row in rows])
    metrics = {"test_accuracy": float(accuracies.mean()), "runs": float(len(rows))}
    if len(rows) > 1:
        error = accuracies.std(ddof=1) / np.sqrt(len(rows))
        metrics["test_accuracy_half_width"] = float(error * stats.t.ppf((1 + confidence) / 2, len(rows) - 1))
    metrics["diverged"] = float(sum(columns["status"][row] == "diverged" for row in rows))
    for name in ("validation_accuracy", "test_loss", "train_loss", "train_seconds"):
        values = [columns[name][row] for row in rows if columns[name][row] is not None]
        if values:
            metrics[name] = float(np.mean(values))
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _wanted(space: SearchSpace) -> dict[str, str]:
    """Where to tell, by tracker."""
    return {} if space.tracking is None else space.tracking.model_dump(exclude_none=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Trackers' libraries talk, wait and report home less; what they print all the same is no answer of ours."""
    for name, value in (QUIET | PATIENCE).items():
        os.environ.setdefault(name, value)
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)


def _mlflow(uri: str, sweep: str, found: list[Record], store: Store) -> None:
    """One MLflow run a record, in an experiment of the sweep's name: created, filled in one batch, and ended."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri if "://" in uri else None)
    experiment = client.get_experiment_by_name(sweep)
    if experiment and experiment.lifecycle_stage == "deleted":
        raise NotTold(
            f"its experiment was deleted there, and nothing can be added to it; "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id} brings it back"
        )
    number = experiment.experiment_id if experiment else client.create_experiment(sweep)
    there: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_runs([number], "tags.`sweep.name` != ''", max_results=1000, page_token=token)
        there |= {run.data.tags.get("sweep.key", ""): run for run in page}
        token = page.token
        if not token:
            break
    now = int(time.time() * 1000)
    for record in found:
        old = there.get(record.key)
        if old is not None and old.data.tags.get("sweep.digest") == record.digest:
            continue
        tags = {"sweep.name": sweep, "sweep.key": record.key, "mlflow.source.name": "sweep"}
        run = old or client.create_run(number, start_time=now, tags=tags, run_name=record.name)
        # Parameters of a run never change: they are its key.
        parameters = [] if old else [Param(name, str(value)) for name, value in record.settings.items()]
        metrics = [Metric(name, value, now, 0) for name, value in record.metrics.items()]
        # The digest comes in the end: what broke off is told again.
        client.log_batch(run.info.run_id, metrics, parameters, [])
        client.log_batch(run.info.run_id, [], [], [RunTag("sweep.digest", record.digest)])
        client.set_terminated(run.info.run_id, end_time=now)


def _wandb(project: str, sweep: str, found: list[Record], store: Store) -> None:
    """One run of Weights & Biases a record, resumed under its own id; the store remembers what was told.

    Where it is switched off (`WANDB_MODE=disabled`, `wandb disabled`), nothing is told, and nothing remembered.
    """
    import wandb

    memory = f"trackers/{sweep}.wandb.json"
    try:
        told: dict[str, dict[str, str]] = json.loads(store.place.read(memory))
        own = dict(told.get(project, {}))
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        told, own = {}, {}
    quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False)
    try:
        for record in found:
            if own.get(record.key) == record.digest:
                continue
            run = wandb.init(
                project=project,
                id=record.key,
                name=record.name,
                group=sweep,
                config=record.settings,
                resume="allow",
                reinit="create_new",
                settings=quiet,
            )
            if run.disabled:
                run.finish()
                break
            run.summary.update(record.metrics)
            run.finish()
            own[record.key] = record.digest
    finally:
        if own and own != told.get(project):
            store.place.write(memory, json.dumps({**told, project: own}).encode())


def _tensorboard(folder: str, sweep: str, found: list[Record], store: Store) -> None:
    """One folder a record, with its settings as hyperparameters; rewritten where its numbers are others."""
    from tensorboardX import SummaryWriter

    for record in found:
        words = re.sub(r"[^A-Za-z0-9=._ -]", "_", record.name)[:100]
        place = Path(folder) / sweep / f"{words} {record.key[:8]}"
        told = place / "digest"
        if told.exists() and told.read_text() == record.digest:
            continue
        if place.exists():
            shutil.rmtree(place)
        settings = {name: "null" if value is None else value for name, value in record.settings.items()}
        with SummaryWriter(str(place)) as writer:
            writer.add_hparams(settings, record.metrics, name=".")
        told.write_text(record.digest)
