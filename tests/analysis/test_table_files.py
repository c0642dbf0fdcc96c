"""What `analysis.table_files` promises: tables as others write them are read as they are meant, or refused by name."""

import codecs
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.simulated import study

from analysis.effects import cells
from analysis.run_table import load_table
from analysis.study import analyse
from sweep.common.errors import InputError
from sweep.store.tables import RUNS_SCHEMA

ROWS = study([{"width": 1, "activation": "relu"}, {"width": 2, "activation": "gelu"}], 6).round(4)
ROWS["validation_accuracy"] = ROWS["validation_accuracy"].round(4)
WANTED = cells(ROWS, 0.5, 0.95)


def text(rows: pd.DataFrame = ROWS, **options: Any) -> str:
    written = io.StringIO()
    rows.to_csv(written, index=False, **options)
    return written.getvalue()


def read(folder: Path, content: bytes | str, name: str = "t.csv") -> pd.DataFrame:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_table(folder / name)


def refused(folder: Path, content: bytes | str, name: str = "t.csv") -> str:
    with pytest.raises(InputError) as caught:
        read(folder, content, name)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ") and "\n" not in message
    return message.removeprefix(f"{folder / name}: ")


PLAIN = text()
HEADER, *LINES = PLAIN.splitlines()


def lined(change: Any, header: str = HEADER) -> str:
    return "\n".join([header, *map(change, LINES)]) + "\n"


WELL_MEANT: dict[str, bytes | str] = {
    "semicolons": text(sep=";"),
    "tabs": text(sep="\t"),
    "bars": text(sep="|"),
    "semicolons and decimal commas": text(sep=";", decimal=","),
    "tabs and decimal commas": text(sep="\t", decimal=","),
    "decimal commas in quotes": lined(lambda line: ",".join(f'"{part.replace(".", ",")}"' for part in line.split(","))),
    "its separator in the first line": "sep=;\r\n" + text(sep=";"),
    "another separator in the first line": "sep=\t\n" + text(sep="\t"),
    "UTF-8 with a mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "UTF-16 as Excel writes it": text(sep="\t").encode("utf-16"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16, big end first, without a mark": PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "commas at the end of every line": lined(lambda line: line + ",", HEADER + ","),
    "commas at the end of rows": lined(lambda line: line + ",,"),
    "commas at the end of the first line": lined(lambda line: line, HEADER + ",,"),
    "lines of commas at the end": PLAIN + ",,,,,,\n,,,,,,\n",
    "empty lines": "\n\n" + PLAIN.replace("\n", "\n\n") + "\n\n",
    "lines as Windows ends them": PLAIN.replace("\n", "\r\n"),
    "lines as old Macs end them": PLAIN.replace("\n", "\r"),
    "no end of the last line": PLAIN.rstrip("\n"),
    "spaces after commas": PLAIN.replace(",", ", "),
    "spaces in the first line": PLAIN.replace(HEADER, HEADER.replace(",", " , ")),
    "everything in quotes": text(quoting=1),
    "quoted lines": text(ROWS.assign(note='first, line\r\nsecond "line"\n')),
    "inches": lined(lambda line: line + ',5" disk', HEADER + ",note"),
    "the index of pandas": ROWS.to_csv(),
    "the index of pandas, written twice": text(ROWS.assign(**{"Unnamed: 0": range(24), "Unnamed: 0.1": range(24)})),
    "the names of rows as R writes them": ROWS.set_axis(range(1, 25)).to_csv(quoting=2),
    "an index out of order beside one": ROWS.assign(**{"Unnamed: 0": range(24)}).set_axis(range(50, 2, -2)).to_csv(),
    "a column without a name or value": lined(lambda line: "," + line, "," + HEADER),
    "yes and no": PLAIN.replace("True", "yes").replace("False", "no"),
    "YES and No": PLAIN.replace("True", "YES").replace("False", "No"),
    "on and off": PLAIN.replace("True", "on").replace("False", "off"),
    "decimals of whole numbers": text(ROWS.assign(width=ROWS["width"].map("{:.3f}".format))),
    "columns of words": text(ROWS.assign(status="ok", note="same")),
}  # fmt: skip


@pytest.mark.parametrize("content", WELL_MEANT.values(), ids=WELL_MEANT)
def test_what_can_only_be_meant_one_way_is_read_so(tmp_path: Path, content: bytes | str) -> None:
    assert cells(read(tmp_path, content), 0.5, 0.95) == WANTED


ILL_MEANT: dict[str, tuple[bytes | str, str]] = {
    "a column twice": (text(ROWS.assign(again=4)).replace("again", "width"), "column width appears twice"),
    "a column twice, but for spaces": (
        text(ROWS.assign(again=4)).replace("again", " width"),
        "column width appears twice",
    ),
    "a required column twice": (text(ROWS.assign(again=4)).replace("again", "seed"), "column seed appears twice"),
    "a column twice, with semicolons": (
        text(ROWS.assign(again=4), sep=";").replace("again", "width"),
        "column width appears twice",
    ),
    "decimal commas between commas": (
        lined(lambda line: line.replace(".", ",")),
        "line 2 has 9 fields, the first line 7; numbers with a decimal comma need another separator",
    ),
    "a value without a name": (lined(lambda line: line + ",7"), "line 2 has 8 fields, the first line 7"),
    "a line cut short": (PLAIN + "2,gelu,3", "line 26 has 3 fields, the first line 7"),
    "a quote that is not closed": (
        lined(lambda line: line + ',"x', HEADER + ",note"),
        "line 2: a quotation mark is not",
    ),
    "one quote in the last column": (
        "\n".join([f"{HEADER},note", *(f"{line},{chr(34) * (n == 9)}x" for n, line in enumerate(LINES))]),
        "line 11: a quotation mark is not closed",
    ),
    "one quote in the first column": (
        "\n".join([f"note,{HEADER}", *(f"{chr(34) * (n == 9)}x,{line}" for n, line in enumerate(LINES))]),
        "line 11: a quotation mark is not closed",
    ),
    "two quotes that close each other": (
        "\n".join([f"{HEADER},note", *(f"{line},{chr(34) * (n in (9, 14))}x" for n, line in enumerate(LINES))]),
        "line 11: a quotation mark is not closed, or ends before its value does",
    ),
    "no text": (b"bias,seed,test_accuracy\n\xfc,0,0.5\n", "byte 25 is not UTF-8, nor marked as UTF-16; save it as"),
    "half a character of UTF-16": (PLAIN.encode("utf-16")[:-1], "is not utf-16-le; save it as UTF-8"),
    "nothing but a mark": (codecs.BOM_UTF16_LE, "it is empty"),
    "nothing but lines": ("\n\n \n", "it is empty"),
    "a separator of its own": (PLAIN.replace(",", "~"), "no column bias, seed, test_accuracy"),
    "thousands or decimals": (
        text(ROWS.assign(steps="1,000"), sep=";"),
        "column steps, row 1: 1,000; must be a number; its comma may mark decimals or thousands",
    ),
    "thousands beside decimal commas": (
        text(ROWS.assign(steps="1.000"), sep=";", decimal=","),
        "column steps, row 1: 1.000; its points may mark decimals or thousands, write it without",
    ),
    "points and commas": (
        text(ROWS.assign(test_accuracy=["0,5", *["0.5"] * (len(ROWS) - 1)]), sep=";"),
        "column test_accuracy, row 1: 0,5",
    ),
    "names of rows without a column name": (
        lined(lambda line: f"row,{line}"),
        "numbers with a decimal comma need another separator; numbers or names of rows need a column name, too",
    ),
    "a title": ("My runs\n\n" + PLAIN, "line 3 has 7 fields, the first line 1; the first line has to name the columns"),
    "spaces between columns": (text(sep=" ", quoting=2), "no column bias, seed, test_accuracy"),
    "a workbook": (b"PK\x03\x04" + bytes(99), "it is a workbook or another zip file: save it as CSV"),
    "Parquet under another name": (ROWS.to_parquet(), "it is a Parquet file, and its name should end in .parquet"),
    "a packed table": (gzip.compress(PLAIN.encode()), "it is compressed with gzip: unpack it"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "it is a pointer of Git LFS"),
    "percent signs": (text(ROWS.assign(test_accuracy="93 %")), "column test_accuracy, row 1: 93 %"),
    "words of another language": (PLAIN.replace("True", "WAHR"), "column bias, row 1: WAHR; must be true, false"),
    "two files joined": (PLAIN + PLAIN, "column bias, row 25: bias"),
}


@pytest.mark.parametrize(("content", "said"), ILL_MEANT.values(), ids=ILL_MEANT)
def test_what_may_be_meant_otherwise_is_refused_by_name(tmp_path: Path, content: bytes | str, said: str) -> None:
    assert said in refused(tmp_path, content)


def test_what_has_another_content_is_named_in_parquet_too(tmp_path: Path) -> None:
    assert "it is compressed with gzip: unpack it" in refused(tmp_path, gzip.compress(ROWS.to_parquet()), "t.parquet")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"
    assert "git lfs pull fetches it" in refused(tmp_path, pointer, "t.parquet")


def test_a_nameless_column_that_counts_no_rows_is_called_by_its_place(tmp_path: Path) -> None:
    rows = ROWS.assign(**{"Unnamed: 0": ROWS["seed"] * 7 % 5}).set_axis(range(50, 2, -2))
    found = read(tmp_path, rows[["Unnamed: 0", *ROWS]].to_csv())
    assert list(found)[:2] == ["column 1", "Unnamed: 0"]


def test_tables_of_tabs_have_a_suffix_of_their_own(tmp_path: Path) -> None:
    assert cells(read(tmp_path, text(sep="\t"), "t.TSV"), 0.5, 0.95) == WANTED


def test_decimal_commas_are_read_in_every_column_of_numbers(tmp_path: Path) -> None:
    rows = ROWS.assign(learning_rate=np.where(ROWS["width"] == 1, 0.05, 0.1), steps=1001.0, train_loss=0.25)
    found = read(tmp_path, text(rows, sep=";", decimal=","))
    for name in ("learning_rate", "validation_accuracy", "train_loss", "test_accuracy", "width"):
        assert found[name].tolist() == rows[name].tolist(), name
    assert found["steps"].tolist() == [1001] * len(rows)


def test_a_csv_of_a_sweep_says_what_its_rows_say(tmp_path: Path) -> None:
    rows = ROWS.assign(
        run_id=[f"{n:016}" for n in range(len(ROWS))], trainer_version=1, device="cpu", dataset="digits", split=0,
        finished_at=pd.Timestamp("2026-01-01", tz="UTC"), dataset_fingerprint="0123456789012345", train_examples=None,
    )  # fmt: skip
    assert {"trainer_version", "finished_at", "dataset_fingerprint"} <= set(RUNS_SCHEMA.names)
    assert analyse(read(tmp_path, text(rows)), name="x") == analyse(rows, name="x")


def test_the_levels_of_a_factor_are_not_told_apart_by_spaces(tmp_path: Path) -> None:
    found = read(tmp_path, PLAIN.replace(",relu,0,", ", relu ,0,"))
    assert set(found["activation"]) == {"relu", "gelu"}


def test_pooling_may_be_none_and_nothing_else_is(tmp_path: Path) -> None:
    rows = ROWS.assign(pooling=np.where(ROWS["width"] == 1, "none", "max"), train_examples="None")
    found = read(tmp_path, text(rows))
    assert set(found["pooling"]) == {"none", "max"} and found["train_examples"].isna().all()


# Folders of Parquet files


def parts(folder: Path, **names: pd.DataFrame) -> Path:
    for name, rows in names.items():
        path = folder / name.replace("__", "/").replace("_is_", "=")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path.with_suffix(".parquet"), index=False)
    return folder


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    folder = parts(tmp_path / "rows", a=ROWS[:5], deep__b=ROWS[5:9], c=ROWS[9:])
    assert cells(load_table(folder), 0.5, 0.95) == WANTED


def test_columns_may_stand_in_the_names_of_folders(tmp_path: Path) -> None:
    names = {f"width_is_{width}__part": rows.drop(columns="width") for width, rows in ROWS.groupby("width")}
    assert cells(load_table(parts(tmp_path / "rows", **names)), 0.5, 0.95) == WANTED
    pq.write_to_dataset(pa.Table.from_pandas(ROWS, preserve_index=False), tmp_path / "theirs", ["bias", "seed"])
    assert cells(load_table(tmp_path / "theirs"), 0.5, 0.95) == WANTED


def test_temporaries_and_other_files_of_a_folder_are_no_part_of_it(tmp_path: Path) -> None:
    folder = parts(tmp_path / "rows", a=ROWS, _temporary__b=ROWS)
    for name in (".a.parquet", "_metadata", "_SUCCESS", "notes.txt"):
        (folder / name).write_text("no table")
    assert cells(load_table(folder), 0.5, 0.95) == WANTED


def test_a_folder_that_is_no_table_is_refused_with_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none: is a folder without a \.parquet file"):
        load_table(tmp_path / "none")
    folder = parts(tmp_path / "rows", a=ROWS, b=ROWS)
    (folder / "b.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"rows/b\.parquet: cannot be read as a \.parquet table"):
        load_table(folder)
    for name in ("runs", "sweeps"):
        (tmp_path / "store" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="is a store: sweep report NAME"):
        load_table(tmp_path / "store")


def test_a_run_that_stands_in_two_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    rows = ROWS.assign(run_id=[f"r{n}" for n in range(len(ROWS))])
    with pytest.raises(InputError, match="run_id r0 appears twice"):
        load_table(parts(tmp_path / "rows", a=rows, b=rows[:1]))


# Parquet of others


def test_a_column_that_stands_twice_in_a_parquet_file_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(ROWS, preserve_index=False)
    pq.write_table(table.append_column("width", table["width"]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column width appears twice"):
        load_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(bias=rows["bias"].astype(str).astype("category")),
        lambda rows: rows.assign(activation=rows["activation"].astype("category"), width=rows["width"].astype("int8")),
        lambda rows: rows.assign(test_accuracy=rows["test_accuracy"].map(lambda one: f"{one:.4f}".replace(".", ","))),
        lambda rows: rows.assign(bias=rows["bias"].map({True: "Yes", False: "No"}), seed=rows["seed"].astype(str)),
        lambda rows: rows.astype({"seed": "Int64", "bias": "boolean", "width": "float64"}),
    ],
)
def test_types_of_others_say_the_same(tmp_path: Path, change: Any) -> None:
    change(ROWS).to_parquet(tmp_path / "t.parquet", index=False)
    assert cells(load_table(tmp_path / "t.parquet"), 0.5, 0.95) == WANTED
