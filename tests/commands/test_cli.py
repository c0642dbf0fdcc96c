import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.real_formats import letter_files, png, trust, write_cifar, write_folder, write_tar

from sweep import cli
from sweep.commands import printing
from sweep.data import library


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
    monkeypatch.setattr(cli, "_debug", False)
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


BAD_SPACES = {
    "misspelt": ("axes: {widht: [1, 2]}", "did you mean 'width'"),
    "unknown data": ("settings: {dataset: mnist50}", "did you mean 'mnist5k'"),
    "impossible": ("axes: {width: [0]}", "axes.width"),
    "twice": ("axes: {width: [1]}\naxes: {width: [2]}", "axes"),
    "unparsable": ("axes: {width: [1, 2", "1"),
    "list": ("- width", "mapping"),
    "path in the name": ("name: ../../etc/passwd", "name"),
}


@pytest.mark.parametrize("command", ["launch", "plan"])
@pytest.mark.parametrize("text, said", BAD_SPACES.values(), ids=BAD_SPACES)
def test_a_bad_search_space_is_one_message_status_2_and_leaves_no_store(
    command: str,
    text: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(text)
    assert run(monkeypatch, command, space, "--store", tmp_path / "results") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {space}")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


BAD_CALLS = {
    "a search space that is not there": (["launch", "none.yaml"], "none.yaml"),
    "a sweep that is not in the store": (["status", "none"], "no sweep 'none'"),
    "a report of nothing": (["report", "none"], "no sweep 'none'"),
    "a report of a file that is not there": (["report", "none.csv"], "none.csv"),
    "an export of nothing": (["export", "none", "--to", "rows.csv"], "no sweep 'none'"),
    "an export to an unknown format": (["export", "none", "--to", "rows.xlsx"], ".parquet or .csv"),
    "no command": (["frobnicate"], "frobnicate"),
    "no such option": (["plan", "none.yaml", "--width", "3"], "--width"),
}

BAD_LOOKS = {
    "an unknown set": (["--show", "mnist5"], "did you mean 'mnist5k'"),
    "a download of an unknown set": (["--download", "imagenet"], "choose from mnist5k"),
    "a download of a folder": (["--download", "folder:x"], "only named data sets"),
    "a sheet that is no PNG": (["--show", "digits", "--out", "x.jpg"], "must end in .png"),
    "a sheet in no folder": (["--show", "digits", "--out", "none/x.png"], "there is no folder none"),
    "pictures that are not here": (["--show", "folder:none"], "there is no folder"),
    "a home that is nobody's": (["--show", "folder:~nobody-here/x"], "no such user"),
    "pictures in a bucket": (["--show", "folder:s3://KEY:secret@b/x"], "folder s3://…: unknown kind 's3'"),
    "pictures in an archive": (["--show", f"folder:{__file__}"], "is a file; expected a folder"),
    "arrays in a folder": (["--show", f"npz:{Path(__file__).parent}"], "is a folder; expected a file"),
    "a path alone": (["--show", str(Path(__file__).parent)], f"did you mean 'folder:{Path(__file__).parent}'?"),
    "fonts that are nowhere": (["--fonts", "none"], "--fonts none: there is no such folder"),
    "fonts in no home": (["--fonts=~nobody-here/x"], "no such user"),
    "a size of pictures that are no folder's": (
        ["--show", "digits", "--image-size", "9"],
        "--image-size 9: only the pictures of folder:PATH",
    ),
    "a sheet of nothing": (["--out", "x.png"], "--out: requires --show NAME"),
    "a check of an unknown set": (["--verify", "mnist5"], "did you mean 'mnist5k'"),
    "a check of what is not here": (["--verify", "mnist"], "is not here"),
    "a check and a look": (
        ["--verify", "digits", "--show", "digits"],
        "--verify digits: cannot be combined with --show",
    ),
}
BAD_CALLS |= {
    name: (["datasets", *arguments, "--data-dir", "data"], said) for name, (arguments, said) in BAD_LOOKS.items()
}


@pytest.mark.parametrize("arguments, said", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_one_message_and_status_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert list(tmp_path.iterdir()) == []


BAD_DATA: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a folder with an empty class": (
        lambda folder: write_folder(folder / "tree", {"a/1.png": png(np.zeros((4, 4), np.uint8)), "b/x": b""}),
        "folder:tree",
        "only one class ('a'); expected at least two classes; no pictures in b",
    ),
    "arrays with NaN": (
        lambda folder: np.savez(folder / "x.npz", images=np.full((40, 4, 4), np.nan), labels=np.arange(40) % 2),
        "npz:x.npz",
        "are NaN",
    ),
    "an archive that leads out of itself": (
        lambda folder: write_tar(folder / "data" / "notMNIST_small.tar.gz", [("../evil.png", b"x")]),
        "notmnist",
        "a path outside it",
    ),
    "an altered archive": (lambda folder: write_cifar(folder / "data"), "cifar10", "truncated or altered"),
    "a folder that is not there": (lambda folder: None, "folder:none", "there is no folder"),
    "fewer pictures than a batch": (
        lambda folder: np.savez(folder / "x.npz", images=np.zeros((20, 4, 4)), labels=np.arange(20) % 2),
        "npz:x.npz",
        "is larger than the training set",
    ),
    "fewer different pictures than a batch": (
        lambda folder: np.savez(folder / "x.npz", images=np.zeros((60, 4, 4)), labels=np.arange(60) % 2),
        "npz:x.npz",
        "too few: no training picture",
    ),
}


@pytest.mark.parametrize(("make", "dataset", "said"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_one_message_status_2_and_leaves_neither_store_nor_cache(
    make: Callable[[Path], object],
    dataset: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path)
    space, store, data = tmp_path / "space.yaml", tmp_path / "results", tmp_path / "data"
    space.write_text(f"settings: {{dataset: '{dataset}', steps: 1, width: 1}}")
    assert run(monkeypatch, "launch", space, "--store", store, "--data-dir", data) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not store.exists()
    if dataset != "npz:x.npz":
        assert not (data / "cache").exists()
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("dataset", ["notmnist", "letters", "cifar10", "svhn"])
def test_a_plan_needs_no_pictures_and_says_what_it_does_not_know(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space, places = tmp_path / "space.yaml", ["--data-dir", tmp_path / "data", "--fonts", tmp_path]
    space.write_text(f"settings: {{dataset: {dataset}}}\naxes: {{width: [1, 2], seed: 3}}")
    assert run(monkeypatch, "plan", space, "--store", tmp_path / "results", *places, "--json") == 0
    out, err = capsys.readouterr()
    planned = json.loads(out)
    assert (planned["in_store"], planned["estimated_seconds"]) == (None, None)
    assert (planned["runs"], planned["to_train"], planned["arrays"]) == (12, 12, 2)
    assert planned["parameters"] > 0 and planned["flops"] > 0
    assert f"{dataset} is not on this machine" in err
    assert list(tmp_path.iterdir()) == [space]


def test_a_plan_of_a_folder_that_is_not_there_knows_its_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("settings: {dataset: 'folder:none'}\naxes: {width: [1, 2], seed: 3}")
    assert (
        run(monkeypatch, "plan", space, "--store", tmp_path / "results", "--data-dir", tmp_path / "data", "--json") == 0
    )
    planned = json.loads(capsys.readouterr().out)
    unknown = {name for name, value in planned.items() if value is None}
    assert unknown == {"arrays", "in_store", "parameters", "flops", "estimated_seconds"}
    assert run(monkeypatch, "plan", space, "--store", tmp_path / "results", "--data-dir", tmp_path / "data") == 0
    assert "Time: unknown." in capsys.readouterr().out


def test_a_plan_of_pictures_that_are_here_knows_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.yaml"
    write_tar(tmp_path / "data" / "notMNIST_small.tar.gz", letter_files().items())
    space.write_text("settings: {dataset: notmnist, steps: 5}\naxes: {width: [1, 2], seed: 3}")
    assert (
        run(monkeypatch, "plan", space, "--store", tmp_path / "results", "--data-dir", tmp_path / "data", "--json") == 0
    )
    planned = json.loads(capsys.readouterr().out)
    assert planned["in_store"] == 0 and planned["estimated_seconds"] > 0


def test_the_data_sets_are_listed_for_people_and_for_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path))
    assert run(monkeypatch, "datasets") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:5] == ["mnist5k", "1x28x28", "10", "3,500/500/1,000", "yes"] for line in lines)
    assert any(line.split()[:5] == ["svhn", "3x32x32", "10", "68,257/5,000/26,032", "no"] for line in lines)
    assert run(monkeypatch, "datasets", "--json") == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert listed["digits"]["here"] and not listed["notmnist"]["here"] and listed["notmnist"]["train"] is None
    keys = {
        "name",
        "channels",
        "height",
        "width",
        "classes",
        "train",
        "validation",
        "test",
        "here",
        "licence",
        "source",
    }
    assert all(each.keys() == keys for each in listed.values())


def test_a_data_set_is_verified_and_what_was_stale_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.arange(60, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    tree = write_folder(tmp_path / "tree", {f"{'ab'[n % 2]}/{n}.png": png(each) for n, each in enumerate(grey)})
    verify = ("datasets", "--verify", f"folder:{tree}", "--data-dir", tmp_path / "data")
    assert run(monkeypatch, *verify) == 0
    assert capsys.readouterr().out.endswith("; nothing was kept of it\n")
    assert run(monkeypatch, *verify) == 0
    assert capsys.readouterr().out.endswith("; as it was kept\n")
    monkeypatch.setattr(library._Input, "signature", lambda _: "nothing is noticed")
    assert run(monkeypatch, *verify, "--json") == 0
    before = json.loads(capsys.readouterr().out)["fingerprint"]
    (tree / "a" / "new.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
    assert run(monkeypatch, *verify) == 0
    assert capsys.readouterr().out.endswith(f"; what was kept of it was stale ({before})\n")
    assert run(monkeypatch, *verify, "--image-size", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] is None


def test_a_data_set_is_shown_as_a_sheet_of_ten_pictures_a_class_with_its_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "notMNIST_small.tar.gz", letter_files().items())
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "datasets", "--show", "notmnist", "--data-dir", tmp_path) == 0
    out = capsys.readouterr().out
    assert "1 empty file left out: A/broken.png\n1 picture that cannot be decoded left out: F/broken.png\n" in out
    assert any(line.split() == ["A", "21", "3", "6"] for line in out.splitlines())
    with Image.open(tmp_path / "notmnist-pictures.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert sheet.size[1] == 10 * 60 + 4
    # Brightness grows with the class in these files: so does that of the rows.
    brightness = [pixels[4 + 60 * row : 60 + 60 * row, -500:].mean() for row in range(10)]
    assert brightness == sorted(brightness)
    look = tmp_path / "digits.png"
    assert run(monkeypatch, "datasets", "--show", "digits", "--out", look, "--json", "--data-dir", tmp_path) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["file"] == str(look) and look.exists()
    assert sum(parts["test"] for parts in shown["counts"].values()) == 359


def test_a_download_reads_and_keeps_what_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cifar(tmp_path)
    trust(monkeypatch, tmp_path)
    assert run(monkeypatch, "datasets", "--download", "cifar10", "--data-dir", tmp_path) == 0
    assert capsys.readouterr().out.startswith("cifar10: ")
    assert (tmp_path / "cache" / "cifar10.safetensors").exists()


@pytest.mark.parametrize("command", ["launch", "plan"])
def test_two_search_spaces_of_one_name_are_refused(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    for path in (first, second):
        path.write_text("{name: same, axes: {width: [1]}}")
    store = ("--store", tmp_path / "results")
    assert run(monkeypatch, command, first, second, *store) == 2
    assert f"{first} and {second} are both named 'same'" in capsys.readouterr().err
    assert run(monkeypatch, command, first, first, *store) == 2
    assert f"{first} is given twice" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_store_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").write_text("")
    assert run(monkeypatch, "status", "--store", tmp_path / "results") == 2
    assert "is a file" in capsys.readouterr().err


def test_tracebacks_are_shown_with_debug_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, shown in ([], False), (["--debug"], True):
        assert run(monkeypatch, "status", "none", "--store", tmp_path, *flags) == 2
        assert ("Traceback" in capsys.readouterr().err) == shown


SECRET = "KEY:hide/me"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["status", "--store", f"s3://{SECRET}@b/p", *debug] for debug in ([], ["--debug"])),
        *([command, "space.yaml", "--store", f"s3://{SECRET}@b/p", "--debug"] for command in ("launch", "plan")),
        ["launch", "space.yaml", "--store", f"s3://{SECRET}@b/p", "--address", "http://host:8265"],
        ["launch", "space.yaml", "--address", "http://KEY:hideme@host:8265", "--debug"],
        ["kubernetes", "space.yaml", "--store", f"gs://{SECRET}@b/p"],
        ["status", f"s3://{SECRET}@b/p"],
        ["report", f"s3://{SECRET}@b/p.parquet", "--debug"],
        ["report", "rows.csv", "--out", f"s3://{SECRET}@b/p"],
        ["export", "none", "--to", f"s3://{SECRET}@b/p.csv"],
        ["datasets", "--data-dir", f"s3://{SECRET}@b/p"],
        ["datasets", "--show", "digits", "--out", f"s3://{SECRET}@b/p.png", "--data-dir", "data"],
        ["compact", "--store", "s3://b/p?secret_key=hideme"],
        ["plan", "tracked.yaml", "--debug"],
    ],
    ids=" ".join,
)
def test_a_secret_in_an_address_is_refused_and_shown_nowhere(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("axes: {width: [1]}")
    (tmp_path / "tracked.yaml").write_text(f"tracking: {{mlflow: 'http://{SECRET}@host'}}")
    before = sorted(tmp_path.iterdir())
    assert run(monkeypatch, *arguments) == 2
    said = "".join(capsys.readouterr())
    assert "error: " in said and "hide" not in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_secret_in_what_a_library_says_is_not_shown(
    debug: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise OSError(f"When reading 's3://{SECRET}@b/p?secret_key={SECRET}'") from KeyError(f"http://{SECRET}@h")

    monkeypatch.setattr("sweep.commands.status.status", broken)
    assert run(monkeypatch, "status", "--store", tmp_path, *debug) == 2
    said = capsys.readouterr().err
    assert "hide" not in said and "error: When reading 's3://***@b/p?secret_key=***" in said


def test_a_home_stands_for_itself_in_every_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    (home / "results" / "sweeps").mkdir(parents=True)
    (home / "results" / "sweeps" / "mine.yaml").write_text("{name: mine, axes: {width: [1]}}")
    lines = [f"{bias},{seed},{0.8 + 0.01 * seed}" for seed in range(8) for bias in ("true", "false")]
    (home / "rows.csv").write_text("\n".join(["bias,seed,test_accuracy", *lines]))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "status", "--json", "--store=~/results") == 0
    monkeypatch.setenv("SWEEP_STORE", "~/results")
    assert run(monkeypatch, "status", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0] == said[1] and said[0][0]["name"] == "mine"
    assert run(monkeypatch, "report", "~/rows.csv", "--out=~/report", "--json") == 0
    assert (home / "report" / "verdict.json").is_file()
    assert run(monkeypatch, "report", f"file://{home}/rows.csv", "--json") == 0
    assert (home / "rows-report" / "verdict.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--store", ""],
        ["status", "--store", "  "],
        ["launch", "space.yaml", "--store="],
        ["launch", "space.yaml", "--store=", "--address", "http://host:8265"],
        ["kubernetes", "space.yaml", "--store="],
        ["report", ""],
        ["report", "rows.csv", "--out="],
    ],
    ids=" ".join,
)
def test_an_empty_address_is_not_the_current_folder(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("axes: {width: [1]}")
    assert run(monkeypatch, *arguments) == 2
    assert "is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


def test_an_error_of_our_own_is_status_1_and_still_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("not the user's fault")

    monkeypatch.setattr("sweep.commands.status.status", broken)
    assert run(monkeypatch, "status", "--store", tmp_path) == 1
    assert capsys.readouterr().err == "error: RuntimeError: not the user's fault (--debug shows more)\n"


def test_an_empty_store_has_no_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "elsewhere"))
    assert run(monkeypatch, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(monkeypatch, "status") == 0
    assert "elsewhere" in capsys.readouterr().out


def test_a_table_from_elsewhere_is_reported_with_the_margin_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["bias,seed,width,test_accuracy"]
    lines += [
        f"{bias},{seed},{width},{0.8 + 0.02 * (bias == 'true') * (width == 1) + 0.0001 * (seed % 3)}"
        for width in (1, 8)
        for seed in range(8)
        for bias in ("true", "false")
    ]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(lines))
    assert run(monkeypatch, "report", table, "--margin", "0.5", "--json", "--store", tmp_path / "none") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict == json.loads((tmp_path / "mine-report" / "verdict.json").read_text())
    assert [cell["verdict"] for cell in verdict["cells"]] == ["matters", "equivalent"]
    assert [(t["matters_up_to"], t["equivalent_from"]) for t in verdict["thresholds"]] == [(1, 8)]
    assert run(monkeypatch, "report", table, "--out", tmp_path / "out", "--store", tmp_path / "none") == 0
    assert "default, not declared" in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "none").exists()


def test_the_version_is_the_package_s_and_says_which_kernels_are_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import version

    from sweep.networks.conv.native import location

    for said in ("avx2", "none (no C++ compiler was found)"):
        monkeypatch.setattr(location, "described", lambda said=said: said)
        assert run(monkeypatch, "--version") == 0
        assert capsys.readouterr().out == f"sweep {version('sweep')}, native kernels: {said}\n"


def test_an_interrupted_launch_counts_what_was_kept_since_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.outcomes import BY, outcome

    import sweep.cluster.driver
    from sweep import plan
    from sweep.space import search_space
    from sweep.store import rows

    path = tmp_path / "small.yaml"
    path.write_text("{settings: {steps: 3}, axes: {seed: 2}}")

    def interrupted(spaces: object, kept: rows.Store, *_: object) -> None:
        assert kept.statuses() == {}
        [array] = plan.arrays(search_space.load(path), "cpu")
        rows.Store(tmp_path / "results").write(
            array.array_id, array.runs(), array.run_ids, [outcome()] * len(array), BY
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.cluster.driver, "launch", interrupted)
    assert run(monkeypatch, "launch", path, "--store", tmp_path / "results") == 130
    assert "Interrupted: 4 of 4 runs are kept" in capsys.readouterr().err


def test_a_launch_that_cannot_write_leaves_the_cluster_and_nothing_beside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    import sweep.commands.launch
    from sweep.cluster import nodes
    from sweep.cluster.crew import Crew
    from sweep.store import rows

    path, witness = tmp_path / "small.yaml", tmp_path / "witness"
    path.write_text("{settings: {steps: 3, dataset: digits}, axes: {seed: 2}}")
    left = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def there(where: nodes.Where, *_: object) -> Crew:
        witness.touch()
        return Crew(where, "cpu", 1, 0, witness=str(witness))

    monkeypatch.setattr(sweep.commands.launch, "authenticate", lambda where: None)
    monkeypatch.setattr(nodes, "_join", lambda *_: None)
    monkeypatch.setattr(nodes, "_crew_there", there)
    monkeypatch.setattr(ray, "shutdown", lambda: left.append(True))
    monkeypatch.setattr(rows.Store, "save_sweep", full)
    assert run(monkeypatch, "launch", path, "--store", tmp_path / "results", "--address", "localhost:6379") == 2
    assert "No space left" in capsys.readouterr().err
    assert left and not witness.exists()


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_of_the_output_ends_a_command(encoding: str, tmp_path: Path) -> None:
    table, space = tmp_path / "größe-尺寸.csv", tmp_path / "axis.yaml"
    lines = [
        f"{bias},{seed},{0.8 + 0.02 * (bias == 'true') + 0.0001 * seed}"
        for seed in range(4)
        for bias in ("true", "false")
    ]
    table.write_text("\n".join(["bias,seed,test_accuracy", *lines]))
    space.write_text("{settings: {dataset: 'folder:尺寸'}, axes: {width: [1, 2, 4, 8, 16, 32, 64, 128, 256], seed: 3}}")
    for status, call in ((0, ["report", table]), (0, ["plan", space]), (2, ["report", tmp_path / "尺寸.csv"])):
        done = subprocess.run(
            [sys.executable, "-m", "sweep", *call, "--store", tmp_path / "none"],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
        )
        assert done.returncode == status and b"Error" not in done.stderr, done.stderr
        assert call[0] != "plan" or done.stdout.startswith(b"axis: 9 cells of 3 pairs, 54 runs\n")
    assert (tmp_path / "größe-尺寸-report" / "report.md").exists()


def test_manifests_are_utf_8_whatever_the_terminal_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    print("# first")
    printing.utf8("# größe\n")
    print("# last", flush=True)
    assert written.getvalue().decode() == "# first\n# größe\n# last\n"
