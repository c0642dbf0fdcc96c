"""The options of the command line: what each is called, what help says of it, and in which panel it stands."""

import functools
from pathlib import Path
from typing import Annotated, Final

import typer

from sweep.kubernetes import OVERLAYS

OF_THIS_MACHINE: Final = frozenset({"address", "install", "debug"})
"""Options of launch that mean this machine. A launch that runs as a job on a cluster gets all others as given here."""


def given(context: typer.Context) -> list[str]:
    """The options of a launch as they were given here, by command line or environment, for the job that runs it."""
    found = []
    for option in context.command.params:
        name = str(option.name)
        source = getattr(context.get_parameter_source(name), "name", "")
        if (
            option.param_type_name != "option"
            or name in OF_THIS_MACHINE
            or source not in ("COMMANDLINE", "ENVIRONMENT")
        ):
            continue
        value = context.params[name]
        if isinstance(value, bool):
            found += (option.opts if value else option.secondary_opts)[:1]
        else:
            found.append(f"{option.opts[0]}={value}")
    return found


_argument = functools.partial(typer.Argument, show_default=False)
_where = functools.partial(typer.Option, rich_help_panel="Where")
_fault = functools.partial(typer.Option, rich_help_panel="Faults", min=0)
_cluster = functools.partial(typer.Option, rich_help_panel="Cluster")
_picture = functools.partial(typer.Option, rich_help_panel="Pictures", show_default=False)
_watching = functools.partial(typer.Option, rich_help_panel="Watching", show_default=False)
_judging = functools.partial(typer.Option, rich_help_panel="Judging", show_default=False)
_output = functools.partial(typer.Option, rich_help_panel="Output")
_flag = functools.partial(_output, metavar="")

Spaces = Annotated[list[Path], _argument(metavar="SPACE", help="Search spaces (YAML files).")]
Space = Annotated[Path, _argument(metavar="SPACE", help="A search space (YAML file).")]
Sweep = Annotated[str, _argument(metavar="NAME", help="A sweep of the store.")]
AnySweep = Annotated[str | None, _argument(metavar="NAME", help="Show this sweep only.")]
SweepOrTable = Annotated[str, _argument(metavar="NAME|FILE", help="A sweep of the store, or a table.")]
Job = Annotated[str, _argument(metavar="JOB", help="Its id, from sweep status --address.")]

Store = Annotated[
    str,
    _where(
        "--store",
        envvar="SWEEP_STORE",
        metavar="DIR",
        help="Folder of all results; or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX.",
    ),
]
PodsStore = Annotated[
    str | None,
    _where(
        "--store",
        envvar="SWEEP_STORE",
        metavar="ADDRESS",
        help="Where all pods can write: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or pvc://CLAIM/FOLDER "
        "(a ReadWriteMany claim).",
    ),
]
DataDir = Annotated[
    Path, _where("--data-dir", envvar="SWEEP_DATA_DIR", metavar="DIR", help="Folder of data sets and their cache.")
]
Fonts = Annotated[
    Path | None, _where("--fonts", metavar="DIR", help="Draw the data set letters with these fonts, not the system's.")
]
Address = Annotated[
    str | None,
    _where(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster to train on: auto or HOST:PORT from one of its machines, http://HOST:8265 from anywhere.",
    ),
]
JobsAddress = Annotated[
    str | None, _where("--address", metavar="ADDRESS", help="Ray cluster, as for launch: list its jobs instead.")
]
JobAddress = Annotated[str, _where("--address", metavar="ADDRESS", help="Ray cluster, as for launch.")]
GpusPerArray = Annotated[
    float | None,
    _where(
        "--gpus-per-array",
        metavar="NUMBER",
        help="GPUs per array: 1 where there are any; 0.5 lets two arrays share one; 0 trains on CPUs.",
    ),
]
CpusPerArray = Annotated[int, _where("--cpus-per-array", metavar="NUMBER", help="Cores, and threads, per array.")]
Install = Annotated[
    bool | None,
    _where(
        "--install/--no-install",
        metavar="",
        help="Bring this project to the cluster's nodes; the default with an http address.",
    ),
]

Retries = Annotated[
    int, _fault("--retries", metavar="NUMBER", help="Tries after the first for an array hit by a fault.")
]
CheckpointSeconds = Annotated[
    float,
    _fault(
        "--checkpoint-seconds",
        envvar="SWEEP_CHECKPOINT_SECONDS",
        metavar="NUMBER",
        help="Training time between checkpoints: the most that a lost machine costs.",
    ),
]

Download = Annotated[
    str | None, _picture("--download", metavar="NAME", help="Download this data set, check it and keep it.")
]
Show = Annotated[
    str | None,
    _picture("--show", metavar="NAME", help="Draw ten pictures of each class of this data set, as a PNG."),
]
Verify = Annotated[
    str | None, _picture("--verify", metavar="NAME", help="Read its files again, and replace a stale cache.")
]
ImageSize = Annotated[
    int | None,
    _picture(
        "--image-size",
        metavar="PIXELS",
        min=1,
        max=1024,
        help="With --show or --verify folder:PATH: resize the pictures to this side.",
    ),
]

Watch = Annotated[bool, _watching("--watch", metavar="", help="Refresh until Ctrl-C; with --json, one list per line.")]
Every = Annotated[float | None, _watching("--every", metavar="SECONDS", help="Time between refreshes; 2 unless given.")]

Margin = Annotated[
    float | None,
    _judging(
        "--margin",
        metavar="POINTS",
        help="Smallest effect that matters, in percentage points; overrides the declared one.",
    ),
]
Confidence = Annotated[
    float | None,
    _judging(
        "--confidence",
        metavar="NUMBER",
        help="Confidence level of the intervals (0.95); overrides the declared one.",
    ),
]
Ignore = Annotated[
    list[str] | None,
    _judging("--ignore", metavar="COLUMN", help="In a table: pool runs that differ in this column; may be repeated."),
]

Overlay = Annotated[
    str,
    _cluster("--overlay", metavar="NAME", help=f"One of {', '.join(OVERLAYS)}.", autocompletion=lambda: list(OVERLAYS)),
]
Image = Annotated[
    str | None, _cluster("--image", metavar="IMAGE", help="The project's image, with its registry and tag.")
]
Namespace = Annotated[str, _cluster("--namespace", metavar="NAME", help="Namespace to run in.")]
MaxGpus = Annotated[int | None, _cluster("--max-gpus", metavar="NUMBER", help="Use at most this many GPUs.")]
MaxWorkers = Annotated[
    int | None,
    _cluster("--max-workers", metavar="NUMBER", help="With --overlay cpu: use at most this many workers."),
]
Queue = Annotated[str | None, _cluster("--queue", metavar="NAME", help="With --overlay kueue: the LocalQueue.")]

NoReport = Annotated[bool, _flag("--no-report", help="Only train: nobody has looked at the results yet.")]
ReportFolder = Annotated[str | None, _output("--out", metavar="DIR", help="Folder to write the report to.")]
Picture = Annotated[Path | None, _output("--out", metavar="FILE", help="With --show: the PNG to write.")]
Table = Annotated[Path, _output("--to", metavar="FILE", help="A .parquet or .csv file.")]
Kustomization = Annotated[
    Path | None,
    _output("--output", metavar="DIR", help="Write a kustomization to this folder, instead of printing."),
]
Apply = Annotated[bool, _flag("--apply", help="Apply the manifests with kubectl; asks first.")]
Yes = Annotated[bool, _flag("--yes", help="With --apply: do not ask.")]
Follow = Annotated[bool, _flag("--follow", help="Show the job's state and its log until it ends.")]
AsJson = Annotated[bool, _flag("--json", help="Print one JSON object and nothing else.")]
