"""The command line: parses, calls, prints. What a command needs is imported as it runs, so that help comes at once."""

import contextlib
import dataclasses
import functools
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from sweep import options
from sweep.cluster.address import Where, authenticate
from sweep.common import addresses
from sweep.common.errors import InputError, exit_status
from sweep.common.fault_options import FaultOptions
from sweep.common.progress import accept_any_text, console, say
from sweep.common.redaction import without_secrets

if TYPE_CHECKING:
    from sweep.cluster.jobs import Cluster  # imports Ray
    from sweep.kubernetes.manifests import DeploymentOptions, Manifests
    from sweep.space.search_space import SearchSpace
    from sweep.store.rows import Store

DATA_DIR: Final = Path("~/.cache/sweep")

_TRAINING: Final = "Training"
_RESULTS: Final = "Results"
_STORAGE: Final = "Data and storage"
"""Panels of commands in help."""


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interruption:
        say(console(stderr=True), "Interrupted.")
        raise typer.Exit(exit_status(interruption)) from None


class _Program(TyperGroup):
    """Ctrl-C ends every command in one line."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _interruptible():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _interruptible():
            return super().invoke(ctx)


app = typer.Typer(cls=_Program, no_args_is_help=True, pretty_exceptions_enable=False)

_debug = False


def _set_debug(given: bool) -> None:
    global _debug
    _debug = _debug or given


def _show_version(given: bool) -> None:
    if given:
        from importlib.metadata import version

        from sweep.networks.conv.native.location import described

        print(f"sweep {version('sweep')}, native kernels: {described()}")
        raise typer.Exit


Debug = Annotated[bool, typer.Option("--debug", metavar="", callback=_set_debug, help="Show tracebacks of errors.")]
Version = Annotated[
    bool,
    typer.Option(
        "--version",
        metavar="",
        callback=_show_version,
        is_eager=True,
        help="Print the version, and which native kernels are used.",
    ),
]


@app.callback()
def common(debug: Debug = False, show_version: Version = False) -> None:
    """Does this part of the network matter, and from which size on?

    A search space (a YAML file) says which small networks to compare.
    sweep launch trains them in matched pairs, keeps the results and reports.
    """


@app.command(rich_help_panel=_TRAINING)
def launch(
    context: typer.Context,
    spaces: options.Spaces,
    store: options.Store = "results",
    data_dir: options.DataDir = DATA_DIR,
    fonts: options.Fonts = None,
    address: options.Address = None,
    gpus_per_array: options.GpusPerArray = None,
    cpus_per_array: options.CpusPerArray = 1,
    install: options.Install = None,
    retries: options.Retries = FaultOptions.retries,
    checkpoint_seconds: options.CheckpointSeconds = FaultOptions.checkpoint_seconds,
    no_report: options.NoReport = False,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Train the missing runs of search spaces, then write their reports.

    Runs that search spaces share are trained once. After an interruption, the same command continues.
    """
    from sweep.commands import launch as launching
    from sweep.commands import printing
    from sweep.data.library import Library
    from sweep.space.search_space import load_all
    from sweep.store.rows import Store

    where_to, faults = (
        Where(address, gpus_per_array, cpus_per_array, install),
        FaultOptions(retries, checkpoint_seconds),
    )
    loaded = load_all(spaces)
    addresses.parse(store, "--store", addresses.STORES)  # before anybody else sees it
    if where_to.kind == "jobs":
        _launch_as_job(spaces, loaded, store, options.given(context), where_to, as_json)
    kept, library = Store(store, once=True), Library(data_dir, fonts)
    err = console(stderr=True)
    wanted = launching.prepared(loaded, library)
    try:
        launched = launching.train(wanted, kept, library, where_to, faults, err, reported=not no_report)
    except launching.Interrupted as interruption:
        say(err, f"Interrupted: {interruption}. To continue, run the same command again.")
        raise typer.Exit(interruption.status) from None
    for array, message in launched.failures.items():
        say(err, f"array {array} failed: {message}")
    if launched.total.failed:
        where = kept.place.path("failures")
        say(err, f"{launched.total.failed:,} runs failed; {where} has the details. To try again, run the same command.")
    if not as_json:
        printing.summary(launched.total)
    answers, whole = [], True
    for space, summary in zip(wanted, launched.sweeps, strict=True):
        made, complete = (None, True) if no_report else launching.report(space, kept, err)
        whole &= complete
        answers.append(dataclasses.asdict(summary) | {"report": made and made.folder})
        if made and not as_json:
            if len(wanted) > 1:
                print(f"\n{space.name}")
            printing.verdict(made.verdict, made.folder)
    if not no_report:  # what a tracker shows is seen, too
        whole &= launching.track(wanted, kept, err)
    if as_json:
        several = {"report": None, "sweeps": answers}
        printing.as_json(answers[0] if len(answers) == 1 else dataclasses.asdict(launched.total) | several)
    if launched.total.failed or not whole:
        raise typer.Exit(1)


@app.command(rich_help_panel=_TRAINING)
def plan(
    spaces: options.Spaces,
    store: options.Store = "results",
    data_dir: options.DataDir = DATA_DIR,
    fonts: options.Fonts = None,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a launch would train, and about how long it would take.

    Trains for a few seconds to find out, and downloads nothing.
    """
    from sweep.commands import changes, plan_text, printing
    from sweep.commands import plan as planning
    from sweep.data.library import Library
    from sweep.space.search_space import load_all
    from sweep.store.rows import Store

    library, wanted = Library(data_dir, fonts, downloads=False), load_all(spaces)
    kept, err, load = Store(store), console(stderr=True), planning.load()  # before the measurement adds to it
    for space in wanted:
        if changed := changes.since_launch(space, kept):
            say(err, changed)
    planned = planning.plan(wanted, kept, library)
    for dataset in dict.fromkeys(dataset for space in wanted for dataset in space.datasets):
        if not library.here(dataset):
            say(err, f"The data set {dataset} is not on this machine: the plan is incomplete.")
    if as_json:
        printing.as_json(dataclasses.asdict(planned))
        return
    for line in plan_text.lines(wanted, planned, planning.devices(planned), load):
        print(line)


@app.command(rich_help_panel=_TRAINING)
def status(
    name: options.AnySweep = None,
    store: options.Store = "results",
    address: options.JobsAddress = None,
    watch: options.Watch = False,
    every: options.Every = None,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how far the sweeps of a store are, or the jobs on a cluster."""
    from sweep.commands import printing
    from sweep.commands import status as standing
    from sweep.store.rows import Store

    if every is not None and not (watch and 0.1 <= every <= 86_400):
        raise InputError(f"--every {every:g}: {'must be from 0.1 to 86400 seconds' if watch else 'requires --watch'}")
    if watch and address is not None:
        raise InputError("--watch: follows a store, and cannot be combined with --address")
    if watch:
        _watch(Store(store), name, every, as_json)
    if address is not None:
        jobs = _cluster(address).jobs(name)
        if as_json:
            printing.as_json([dataclasses.asdict(job) for job in jobs])
        elif not jobs:
            print(f"No job of sweep at {address} yet. To start one: sweep launch SPACE --address {address}")
        else:
            printing.jobs(jobs)
        return
    sweeps = standing.status(Store(store), name)
    if as_json:
        printing.as_json([dataclasses.asdict(each) for each in sweeps])
    elif not sweeps:
        print(_nothing_in(store))
    else:
        printing.statuses(sweeps)


@app.command(rich_help_panel=_TRAINING)
def stop(
    job: options.Job,
    address: options.JobAddress,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Stop a launch that runs as a job on a cluster.

    Finished runs, and checkpoints of the others, are kept.
    """
    from sweep.commands import printing

    stopped = _cluster(address).stop(job)
    if as_json:
        printing.as_json(dataclasses.asdict(stopped))
    else:
        print(f"{stopped.id}: {stopped.status}. To continue, launch it again.")
    if not stopped.has_ended:
        say(console(stderr=True), f"The job takes long to end. To check on it: sweep status --address {address}")
        raise typer.Exit(1)


@app.command(rich_help_panel=_RESULTS)
def report(
    what: options.SweepOrTable,
    store: options.Store = "results",
    margin: options.Margin = None,
    confidence: options.Confidence = None,
    ignore: options.Ignore = None,
    out: options.ReportFolder = None,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Analyse a sweep, or a table of runs from elsewhere."""
    from sweep.commands import printing
    from sweep.commands import report as reporting
    from sweep.store.rows import Store

    kept = Store(store)
    made = reporting.report(what, kept, out, margin, confidence, ignore or ())
    for line in [*made.problems, *made.notes]:
        say(console(stderr=True), line)
    if as_json:
        printing.as_json(made.verdict)
    else:
        printing.verdict(made.verdict, made.folder)
    _end_if_lost(kept, what)
    if made.problems:
        raise typer.Exit(1)


@app.command(rich_help_panel=_RESULTS)
def export(
    name: options.Sweep,
    store: options.Store = "results",
    *,
    to: options.Table,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the rows of a sweep to one file."""
    from sweep.commands import export as exporting
    from sweep.commands import printing
    from sweep.store.rows import Store

    kept, to = Store(store), addresses.local(to, "--to")
    rows = exporting.export(name, kept, to)
    if as_json:
        printing.as_json({"name": name, "rows": rows, "file": str(to)})
    else:
        print(f"{rows:,} rows in {to}")
    _end_if_lost(kept, name)


@app.command(rich_help_panel=_STORAGE)
def datasets(
    download: options.Download = None,
    show: options.Show = None,
    verify: options.Verify = None,
    image_size: options.ImageSize = None,
    data_dir: options.DataDir = DATA_DIR,
    fonts: options.Fonts = None,
    out: options.Picture = None,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """List the data sets, download one, look at its pictures, or check its cache."""
    from sweep.commands import datasets as data_sets
    from sweep.commands import printing
    from sweep.data.library import Library

    library = Library(data_dir, fonts, downloads=verify is None)
    if show is None and (out is not None or (image_size is not None and verify is None)):
        raise InputError(f"{'--out' if out is not None else '--image-size'}: requires --show NAME")
    if verify is not None:
        if show is not None or download is not None:
            raise InputError(f"--verify {verify}: cannot be combined with {'--show' if show else '--download'}")
        verified = data_sets.verify(library, verify, image_size)
        if as_json:
            printing.as_json(dataclasses.asdict(verified))
        else:
            printing.verified(verified)
        return
    if download is not None:
        got = data_sets.download(library, download)
        if not as_json:
            pictures = "an unknown number of" if got.train is None else f"{got.train:,}"
            print(f"{got.name}: {pictures} training pictures, in {library.folder}")
    if show is not None:
        look = data_sets.show(library, show, image_size, out)
        if as_json:
            printing.as_json(dataclasses.asdict(look))
        else:
            printing.look(look)
    elif as_json:
        printing.as_json([dataclasses.asdict(each) for each in data_sets.datasets(library)])
    elif download is None:
        printing.listing(data_sets.datasets(library))


@app.command(rich_help_panel=_STORAGE)
def compact(store: options.Store = "results", as_json: options.AsJson = False, debug: Debug = False) -> None:
    """Merge the small files of a store into larger ones.

    It may run while other commands read and write the store.
    """
    from sweep.commands import printing
    from sweep.store.compaction import compact as merge_files
    from sweep.store.rows import Store

    done = merge_files(Store(store), functools.partial(say, console(stderr=True)))
    if as_json:
        printing.as_json(dataclasses.asdict(done))
    elif done.busy:
        print("Another sweep compact is working on this store; nothing was done.")
    else:
        print(f"{done.files_before:,} files became {done.files_after:,}; {done.rows:,} rows, all there as before.")


@app.command(rich_help_panel=_TRAINING)
def kubernetes(
    space: options.Space,
    overlay: options.Overlay = "gpu",
    image: options.Image = None,
    namespace: options.Namespace = "sweep",
    max_gpus: options.MaxGpus = None,
    max_workers: options.MaxWorkers = None,
    queue: options.Queue = None,
    store: options.PodsStore = None,
    data_dir: options.DataDir = DATA_DIR,
    output: options.Kustomization = None,
    apply: options.Apply = False,
    yes: options.Yes = False,
    follow: options.Follow = False,
    as_json: options.AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the manifests that run a search space on Kubernetes, with KubeRay."""
    from sweep.commands import printing
    from sweep.data.library import Library
    from sweep.kubernetes import manifests as kube

    err = console(stderr=True)
    deployment = kube.DeploymentOptions(overlay, image, store, namespace, max_gpus, max_workers, queue)
    if follow and (as_json or deployment.shared):
        other = "--json" if as_json else "--overlay shared-cluster, which runs no job"
        raise InputError(f"--follow: cannot be combined with {other}")
    if yes and not apply:
        raise InputError("--yes: requires --apply")
    made = kube.manifests(kube.read(space), deployment, Library(data_dir, downloads=False), output)
    for note in made.notes:
        say(err, note)
    if as_json:
        printing.as_json(made.as_json())
    elif output is not None:
        say(err, f"Written to {output}. To apply it: kubectl apply --server-side -k {output}")
    elif not apply and not follow:
        printing.utf8(made.text)
    if apply:
        _apply(made, deployment, yes, err)
    if follow and not _follow(made, deployment, err):
        raise typer.Exit(1)


def main() -> None:
    """The console script: one short message for an error, tracebacks with --debug alone."""
    accept_any_text()
    try:
        app()
    except Exception as error:
        if _debug:
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        mine = isinstance(error, InputError | OSError)
        words = f"error: {error}" if mine else f"error: {type(error).__name__}: {error} (--debug shows more)"
        print(without_secrets(words), file=sys.stderr)
        sys.exit(2 if mine else 1)


def _launch_as_job(
    files: list[Path], spaces: list["SearchSpace"], store: str, given: list[str], where: Where, as_json: bool
) -> NoReturn:
    """Sends the launch to a cluster and ends as the job does; paths are paths there."""
    from sweep.commands import printing

    cluster = _cluster(where)
    try:
        status, answer = cluster.launch(files, spaces, store, given, where, console(stderr=True))
    except KeyboardInterrupt as interruption:
        raise typer.Exit(exit_status(interruption)) from None
    if as_json and answer is not None:
        printing.as_json(answer)
    raise typer.Exit(status)


def _cluster(address: str | Where) -> "Cluster":
    where = Where(address) if isinstance(address, str) else address
    authenticate(where)
    from sweep.cluster.jobs import Cluster

    return Cluster(where)


def _watch(store: "Store", name: str | None, every: float | None, as_json: bool) -> NoReturn:
    from sweep.commands import watching

    if name is None and not store.sweeps() and not as_json:
        say(console(stderr=True), _nothing_in(store.address))
    try:
        watching.follow(watching.Watch(store, name), every or watching.EVERY, as_json, console())
    except KeyboardInterrupt as interruption:
        raise typer.Exit(exit_status(interruption)) from None
    except BrokenPipeError:  # whoever read the lines has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    raise AssertionError("it is followed until it is interrupted")


def _apply(made: "Manifests", deployment: "DeploymentOptions", yes: bool, err: Console) -> None:
    """Gives manifests to the cluster that kubectl talks to; asks first, since that costs money."""
    from sweep.kubernetes import kubectl

    what = f"{made.name}: up to {made.sizes.workers} workers, namespace {deployment.namespace} of {kubectl.context()}"
    if not yes:
        if not _is_terminal():
            raise InputError(f"--apply: {what}; there is no terminal to ask on, so confirm with --yes")
        if not typer.confirm(f"Apply {what}?", err=True):
            raise typer.Exit(1)
    for line in kubectl.apply(made.text).splitlines():
        say(err, line)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _follow(made: "Manifests", deployment: "DeploymentOptions", err: Console) -> bool:
    """Shows how the job goes until it ends; whether it succeeded. On Ctrl-C the job goes on."""
    from sweep.kubernetes import kubectl

    try:
        return kubectl.follow(made.name, deployment.namespace, lambda line: say(err, line))
    except KeyboardInterrupt as interruption:
        say(err, f"The job continues. To stop it: kubectl delete rayjob {made.name} --namespace {deployment.namespace}")
        raise typer.Exit(exit_status(interruption)) from None


def _end_if_lost(store: "Store", name: str) -> None:
    """Exit status 1 where rows of a sweep that was asked for stand in files that cannot be read."""
    from sweep.commands import status as standing

    missing, done = standing.lost(store, name)
    err = console(stderr=True)
    if missing:
        say(err, f"{missing:,} runs of {name} are missing because of that; a launch trains them again.")
    if done:
        why = f"a launch takes {done:,} runs of {name} for done, though their rows cannot be read as a whole"
        say(err, f"{why}; move the damaged files out of the store, and it trains them again.")
    if missing or done:
        raise typer.Exit(1)


def _nothing_in(store: str) -> str:
    return f"No sweep in {store} yet. To start one: sweep launch SPACE"
