"""The command line: parses, calls, prints."""

import dataclasses
import functools
import json
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweep.cluster.address import Where, authenticate
from sweep.commands import changes
from sweep.commands import datasets as data_sets
from sweep.commands import export as exporting
from sweep.commands import launch as launching
from sweep.commands import plan as planning
from sweep.commands import report as reporting
from sweep.commands import status as standing
from sweep.common import addresses
from sweep.common.addresses import without_secrets
from sweep.common.errors import InputError
from sweep.common.fault_options import Care
from sweep.common.progress import say
from sweep.data.library import Library, Listing, Verified
from sweep.kubernetes import kubectl
from sweep.kubernetes import manifests as kube
from sweep.space.search_space import SearchSpace, load_all
from sweep.store.rows import Store

if TYPE_CHECKING:
    from sweep.cluster.jobs import Cluster, Job  # imports Ray

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Does this part of the network matter, and from which size on?",
)

_WIDE = 140
"""Columns of a table that goes to a file or another program."""

DATA_DIR = Path("~/.cache/sweep")

_debug = False


def _set_debug(given: bool) -> None:
    global _debug
    _debug = _debug or given


def _show_version(given: bool) -> None:
    if given:
        print(version("sweep"))
        raise typer.Exit


Spaces = Annotated[list[Path], typer.Argument(metavar="SPACE", help="Search spaces, YAML files.", show_default=False)]
StoreFolder = Annotated[str, typer.Option("--store", envvar="SWEEP_STORE", help="The folder of all results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show tracebacks.")]
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="SWEEP_DATA_DIR", help="The folder of data sets and their cache.")
]
Fonts = Annotated[
    Path | None,
    typer.Option(
        "--fonts", help="Folder of fonts for the data set letters, instead of the system's.", show_default=False
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin", help="Smallest effect that matters, in points, instead of the declared.", show_default=False
    ),
]
Confidence = Annotated[
    float | None, typer.Option("--confidence", help="Of the intervals, instead of the declared.", show_default=False)
]


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="A Ray cluster to train on: auto or HOST:PORT from one of its machines, http://HOST:8265 from anywhere.",
        show_default=False,
    ),
]


@app.callback()
def common(
    debug: Debug = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Does this part of the network matter, and from which size on?"""


@app.command()
def launch(
    spaces: Spaces,
    store: StoreFolder = "results",
    data_dir: DataDir = DATA_DIR,
    fonts: Fonts = None,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Train only: nobody looks at the results yet.")
    ] = False,
    address: Address = None,
    gpus_per_array: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-array",
            metavar="NUMBER",
            help="1 where there are GPUs; 0.5: two arrays share one; 0: train on CPUs.",
            show_default=False,
        ),
    ] = None,
    cpus_per_array: Annotated[
        int, typer.Option("--cpus-per-array", metavar="NUMBER", help="Cores, and threads, of an array.")
    ] = 1,
    install: Annotated[
        bool | None,
        typer.Option(
            "--install/--no-install",
            help="Bring this project to the nodes of the cluster; the default where the address is http.",
            show_default=False,
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option("--retries", metavar="NUMBER", min=0, help="Further tries of an array that a fault has hit.")
    ] = Care.retries,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(
            "--checkpoint-seconds",
            envvar="SWEEP_CHECKPOINT_SECONDS",
            metavar="SECONDS",
            min=0,
            help="Training between two checkpoints of an array: what a lost machine costs at most.",
        ),
    ] = Care.checkpoint_seconds,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train what is missing of search spaces, then write their reports; runs that they share are trained once."""
    where_to, care = Where(address, gpus_per_array, cpus_per_array, install), Care(retries, checkpoint_seconds)
    loaded = load_all(spaces)
    addresses.parse(store, "--store", addresses.STORES)  # before anybody else sees it
    if where_to.kind == "jobs":
        _launch_as_job(spaces, loaded, store, where_to, care, data_dir, fonts, no_report, as_json)
    kept, library, console = (
        Store(store, once=True),
        Library(addresses.local(data_dir, "--data-dir"), fonts),
        Console(stderr=True),
    )
    wanted = launching.prepared(loaded, library)
    try:
        launched = launching.train(wanted, kept, library, where_to, care, console)
    except launching.Interrupted as interruption:
        say(console, f"Interrupted: {interruption}. To go on: the same command.")
        raise typer.Exit(interruption.status) from None
    for array, message in launched.failures.items():
        say(console, f"array {array} failed: {message}")
    if launched.total.failed:
        where = kept.place.path("failures")
        say(console, f"{launched.total.failed:,} runs failed; {where} tells more. To try again: the same command.")
    if not as_json:
        _print_summary(launched.total)
    answers = []
    for space, summary in zip(wanted, launched.sweeps, strict=True):
        folder, verdict = (None, None) if no_report else launching.report(space, kept, console)
        answers.append(dataclasses.asdict(summary) | {"report": folder})
        if verdict and not as_json:
            if len(wanted) > 1:
                print(f"\n{space.name}")
            _print_verdict(verdict, folder)
    if not no_report:  # what a tracker shows is seen, too
        launching.track(wanted, kept, console)
    if as_json:
        several = {"report": None, "sweeps": answers}
        _print_json(answers[0] if len(answers) == 1 else dataclasses.asdict(launched.total) | several)
    if launched.total.failed:
        raise typer.Exit(1)


@app.command()
def plan(
    spaces: Spaces,
    store: StoreFolder = "results",
    data_dir: DataDir = DATA_DIR,
    fonts: Fonts = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a launch of these search spaces would train, and how long it would take."""
    library, wanted = Library(addresses.local(data_dir, "--data-dir"), fonts, downloads=False), load_all(spaces)
    kept, console = Store(store), Console(stderr=True)
    for space in wanted:
        if changed := changes.since_launch(space, kept):
            say(console, changed)
    planned = planning.plan(wanted, kept, library)
    for dataset in dict.fromkeys(dataset for space in wanted for dataset in space.datasets):
        if not library.here(dataset):
            say(console, f"The data set {dataset} is not on this machine: what needs it is not known.")
    if as_json:
        _print_json(dataclasses.asdict(planned))
        return
    table = Table(show_header=False, box=None)
    for name, value in dataclasses.asdict(planned).items():
        table.add_row(name.replace("_", " "), _shown(value))
    Console().print(table)


@app.command()
def datasets(
    download: Annotated[
        str | None, typer.Option("--download", metavar="NAME", help="Get a data set.", show_default=False)
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(
            "--show", metavar="NAME", help="Write ten pictures of every class as one PNG.", show_default=False
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option("--verify", metavar="NAME", help="Read its files anew; mend a stale cache.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Of --show: the PNG.", show_default=False)] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, max=1024, help="Of folder:PATH.", show_default=False)
    ] = None,
    data_dir: DataDir = DATA_DIR,
    fonts: Fonts = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the data sets, get one, look at one, or read one anew."""
    library = Library(addresses.local(data_dir, "--data-dir"), fonts, downloads=verify is None)
    if show is None and (out is not None or (image_size is not None and verify is None)):
        raise InputError(f"{'--out' if out is not None else '--image-size'}: belongs to --show NAME")
    if verify is not None:
        if show is not None or download is not None:
            raise InputError(f"--verify {verify}: cannot be given with {'--show' if show else '--download'}")
        _print_verified(data_sets.verify(library, verify, image_size), as_json)
        return
    if download is not None:
        got = data_sets.download(library, download)
        if not as_json:
            print(f"{got.name}: {_shown(got.train)} training pictures, in {library.folder}")
    if show is not None:
        _print_look(data_sets.show(library, show, image_size, out), as_json)
    elif download is None or as_json:
        _print_listing(data_sets.datasets(library), as_json)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Of one sweep.", show_default=False)] = None,
    store: StoreFolder = "results",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Of a Ray cluster, as for launch: lists its jobs instead.", show_default=False),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on looking until Ctrl-C; with --json, one line (a list) a look.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option("--every", metavar="SECONDS", help="Between two looks of --watch; 2.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how far each sweep of the store has come, or the launches that run as jobs on a cluster."""
    if every is not None and not (watch and 0.1 <= every <= 86_400):
        raise InputError(
            f"--every {every:g}: " + ("allowed are 0.1 to 86400 seconds" if watch else "goes with --watch")
        )
    if watch and address is not None:
        raise InputError("--watch: looks at a store; with --address it has none")
    if watch:
        _watch(Store(store), name, every, as_json)
    if address is not None:
        _print_jobs(_cluster(address).jobs(name), address, as_json)
        return
    sweeps = [dataclasses.asdict(each) for each in standing.status(Store(store), name)]
    if as_json:
        _print_json(sweeps)
    elif not sweeps:
        print(f"No sweep in {store} yet: sweep launch SPACE starts one.")
    else:
        table = Table(*sweeps[0], box=None)
        for each in sweeps:
            table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in each.values()))
        Console().print(table)


@app.command()
def stop(
    job: Annotated[str, typer.Argument(metavar="JOB", help="As sweep status --address names it.")],
    address: Annotated[str, typer.Option("--address", help="Of the Ray cluster, as for launch.", show_default=False)],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Stop a launch that runs as a job on a cluster; what it has done, and checkpoints of the rest, are kept."""
    stopped = _cluster(address).stop(job)
    if as_json:
        _print_json(dataclasses.asdict(stopped))
    else:
        print(f"{stopped.id}: {stopped.status}. To go on: launch it again.")
    if not stopped.has_ended:
        say(Console(stderr=True), f"It takes long to end. Whether it has: sweep status --address {address}")
        raise typer.Exit(1)


@app.command()
def report(
    what: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A sweep of the store, or a .parquet or .csv table.")
    ],
    store: StoreFolder = "results",
    out: Annotated[
        str | None, typer.Option("--out", metavar="PATH", help="Folder of the report.", show_default=False)
    ] = None,
    margin: Margin = None,
    confidence: Confidence = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Analyse a sweep, or a table of runs from elsewhere."""
    kept = Store(store)
    folder, verdict = reporting.report(what, kept, out, margin, confidence)
    if as_json:
        _print_json(verdict)
    else:
        _print_verdict(verdict, folder)
    _end_if_lost(kept, what)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A sweep of the store.")],
    to: Annotated[Path, typer.Option("--to", help="A .parquet or .csv file.")],
    store: StoreFolder = "results",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the rows of a sweep as one table."""
    kept = Store(store)
    rows = exporting.export(name, kept, to)
    if as_json:
        _print_json({"name": name, "rows": rows, "file": str(to)})
    else:
        print(f"{rows:,} rows in {to}")
    _end_if_lost(kept, name)


@app.command()
def compact(store: StoreFolder = "results", as_json: AsJson = False, debug: Debug = False) -> None:
    """Merge the small files of a store into larger ones, safely while others read and write."""
    from sweep.store.compaction import compact as merge_files

    console = Console(stderr=True)
    done = merge_files(Store(store), functools.partial(say, console))
    if as_json:
        _print_json(dataclasses.asdict(done))
    elif done.busy:
        print("Another sweep compact is at work on this store: nothing was done.")
    else:
        print(f"{done.files_before:,} files became {done.files_after:,}; {done.rows:,} rows, all there as before.")


@app.command()
def kubernetes(
    space: Annotated[Path, typer.Argument(metavar="SPACE", help="A search space, a YAML file.", show_default=False)],
    overlay: Annotated[str, typer.Option("--overlay", help=f"Which of {', '.join(kube.OVERLAYS)}.")] = "gpu",
    image: Annotated[
        str | None, typer.Option("--image", help="The image, as a registry knows it.", show_default=False)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar="SWEEP_STORE",
            help="What all pods see: s3://…, gs://…, or pvc://CLAIM/FOLDER, a ReadWriteMany claim.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Of the sweep, in the cluster.")] = "sweep",
    max_gpus: Annotated[int | None, typer.Option("--max-gpus", help="At most so many.", show_default=False)] = None,
    max_workers: Annotated[
        int | None, typer.Option("--max-workers", help="Of the overlay cpu: at most so many.", show_default=False)
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", help="Of the overlay kueue: its LocalQueue.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Write the kustomization there instead.", show_default=False),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Give the manifests to the cluster, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Of --apply: do not ask.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show how the job goes, and its log, until it ends.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the manifests that run a search space on KubeRay."""
    console = Console(stderr=True)
    wish = kube.Wish(overlay, image, store, namespace, max_gpus, max_workers, queue)
    if follow and (as_json or wish.shared):
        raise InputError(f"--follow: does not go with {'--json' if as_json else '--overlay shared-cluster: no job'}")
    if yes and not apply:
        raise InputError("--yes: belongs to --apply")
    library = Library(addresses.local(data_dir, "--data-dir"), downloads=False)
    made = kube.manifests(kube.read(space), wish, library, output)
    for note in made.notes:
        say(console, note)
    if as_json:
        _print_json(made.as_json())
    elif output is not None:
        say(console, f"{output}: kubectl apply --server-side -k {output}")
    elif not apply and not follow:
        print(made.text, end="")
    if apply:
        _apply(made, wish, yes, console)
    if follow and not _follow(made, wish, console):
        raise typer.Exit(1)


def main() -> None:
    """The console script: one short message for an error, tracebacks with --debug alone."""
    try:
        app()
    except Exception as error:
        if _debug:
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        mine = isinstance(error, InputError | OSError)
        words = f"error: {error}" if mine else f"error: {type(error).__name__}: {error} (--debug shows more)"
        print(without_secrets(words), file=sys.stderr)
        sys.exit(2 if mine else 1)


def _apply(made: kube.Manifests, wish: kube.Wish, yes: bool, console: Console) -> None:
    """Gives manifests to the cluster that kubectl talks to; asks first, since that costs money."""
    size = made.sizes
    what = f"{made.name}: up to {size.workers} workers, namespace {wish.namespace} of {kubectl.context()}"
    if not yes:
        if not _is_terminal():
            raise InputError(f"--apply: {what}; there is nobody to ask, so say --yes")
        if not typer.confirm(f"Apply {what}?", err=True):
            raise typer.Exit(1)
    for line in kubectl.apply(made.text).splitlines():
        say(console, line)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _follow(made: kube.Manifests, wish: kube.Wish, console: Console) -> bool:
    """Shows how the job goes until it ends; whether it succeeded. On Ctrl-C the job goes on."""
    try:
        return kubectl.follow(made.name, wish.namespace, lambda line: say(console, line))
    except KeyboardInterrupt:
        say(console, f"The job goes on. To stop it: kubectl delete rayjob {made.name} --namespace {wish.namespace}")
        raise typer.Exit(130) from None


def _launch_as_job(
    files: list[Path],
    spaces: list[SearchSpace],
    store: str,
    where: Where,
    care: Care,
    data_dir: Path,
    fonts: Path | None,
    no_report: bool,
    as_json: bool,
) -> NoReturn:
    """Sends the launch to a cluster and ends as the job does; paths are paths there."""
    given = {
        "--data-dir": None if data_dir == DATA_DIR else data_dir,
        "--fonts": fonts,
        "--gpus-per-array": where.gpus_per_array,
        "--cpus-per-array": where.cpus_per_array,
        "--retries": care.retries,
        "--checkpoint-seconds": care.checkpoint_seconds,
    }
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    options += [name for name, wanted in {"--no-report": no_report, "--json": as_json}.items() if wanted]
    cluster = _cluster(where)
    try:
        status, answer = cluster.launch(files, spaces, store, options, where, Console(stderr=True))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json and answer is not None:
        _print_json(answer)
    raise typer.Exit(status)


def _cluster(address: str | Where) -> "Cluster":
    where = Where(address) if isinstance(address, str) else address
    authenticate(where)
    from sweep.cluster.jobs import Cluster

    return Cluster(where)


def _print_jobs(jobs: list["Job"], address: str, as_json: bool) -> None:
    if as_json:
        _print_json([dataclasses.asdict(job) for job in jobs])
    elif not jobs:
        print(f"No job of sweep at {address}: sweep launch SPACE --address {address} starts one.")
    else:
        table = Table("id", "sweep", "status", "started", "message", box=None)
        for job in jobs:
            table.add_row(*(escape(value or "") for value in (job.id, job.sweep, job.status, job.started, job.message)))
        Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def _watch(store: Store, name: str | None, every: float | None, as_json: bool) -> NoReturn:
    from sweep.commands import watching

    if name is None and not store.sweeps() and not as_json:
        say(Console(stderr=True), f"No sweep in {store.address} yet: sweep launch SPACE starts one.")
    try:
        watching.follow(watching.Watch(store, name), every or watching.EVERY, as_json, Console())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # whoever read the lines has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    raise AssertionError("it is followed until it is interrupted")


def _end_if_lost(store: Store, name: str) -> None:
    """Exit status 1 where rows of a sweep that was asked for stand in files that cannot be read."""
    if runs := standing.lost(store, name):
        say(Console(stderr=True), f"{runs:,} runs of {name} are missing for that: a launch trains them again.")
        raise typer.Exit(1)


def _print_summary(summary: Any) -> None:
    if not summary.trained and not summary.failed:
        print(f"Nothing to train: all {summary.runs:,} runs of {summary.name} are in the store.")
    else:
        speed = summary.trained / summary.seconds
        print(f"{summary.trained:,} runs trained in {summary.seconds:.1f} s ({speed:.1f} a second), ", end="")
        print(f"{summary.already:,} already there, {summary.failed:,} failed, {summary.diverged:,} diverged.")


def _print_verdict(verdict: dict[str, Any] | None, folder: str | None) -> None:
    if not verdict:
        return
    from analysis.wording import sentences

    if verdict["missing_runs"]:
        print(f"Incomplete: {verdict['missing_runs']:,} runs of this sweep have no row yet.")
    if verdict["unplanned_look"]:
        taken, declared = verdict["looks"]["taken"], verdict["looks"]["declared"]
        print(f"Look {taken}, declared were {declared}: these verdicts no longer carry their error rate.")
    if other := sentences.other_looks(verdict):
        print(other)
    for alarm in verdict["alarms"]:
        print(f"Alarm: {alarm}")
    for line in [*sentences.answers(verdict), sentences.summary(verdict)]:
        print(line)
    drawn = {"width": "effect_by_width", "depth": "effect_by_depth"}
    picture = next((name for axis, name in drawn.items() if axis in verdict["factors"]), "effects")
    print(f"picture: {folder}/{picture}.png")
    print(f"page:    {folder}/report.html")
    print(f"report:  {folder}/report.md")


def _print_listing(listing: list[Listing], as_json: bool) -> None:
    if as_json:
        _print_json([dataclasses.asdict(each) for each in listing])
        return
    table = Table(box=None, pad_edge=False)
    for head in ("name", "pictures", "classes", "train/validation/test", "here", "licence; source"):
        table.add_column(head, no_wrap=not head.startswith("licence"))
    for each in listing:
        shape = f"{each.channels}x{each.height}x{each.width}"
        sizes = "/".join("?" if size is None else f"{size:,}" for size in (each.train, each.validation, each.test))
        here = "yes" if each.here else "no"
        table.add_row(each.name, shape, str(each.classes), sizes, here, f"{each.licence}; {each.source}")
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)
    print("Besides: folder:PATH (pictures, one subfolder per class), npz:PATH (arrays images and labels).")


def _print_verified(verified: Verified, as_json: bool) -> None:
    if as_json:
        _print_json(dataclasses.asdict(verified))
        return
    kept = "nothing was kept of it" if verified.kept is None else f"what was kept of it was stale ({verified.kept})"
    same = verified.kept == verified.fingerprint
    print(f"{verified.name}: fingerprint {verified.fingerprint}; {'as it was kept' if same else kept}")


def _print_look(look: data_sets.Look, as_json: bool) -> None:
    if as_json:
        _print_json(dataclasses.asdict(look))
        return
    table = Table("class", "train", "validation", "test", box=None)
    for name, counts in look.counts.items():
        table.add_row(escape(name), *(f"{count:,}" for count in counts.values()))
    Console().print(table)
    for note in look.notes:
        print(note)
    print(f"fingerprint: {look.fingerprint}")
    print(f"picture: {look.file}")


def _shown(value: Any) -> str:
    if value is None:
        return "not known"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))
