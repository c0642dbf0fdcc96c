"""What files of tables hold: CSV as spreadsheets and programs write it, Parquet, folders of Parquet files.

CSV comes out as text, field by field: what a value means, and whether it is allowed, is known to `run_table`.
"""

import codecs
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from sweep.common.errors import InputError
from sweep.store.tables import check_version

Source: TypeAlias = Path | bytes
"""A file of this machine, or the content of one that is elsewhere."""

TEXT: Final = (".csv", ".tsv")
KINDS: Final = (".parquet", *TEXT)

_MISSING: Final = pa.array(
    ["", "#N/A", "N/A", "NA", "<NA>", "n/a", "nan", "NaN", "-nan", "-NaN", "NULL", "null", "None"], pa.string()
)
"""What pandas, too, takes for a missing value."""

_SEPARATORS: Final = (",", ";", "\t", "|")
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
"""By the first bytes of a text, how it is encoded; the longer marks stand before those that they begin with."""


_NAMELESS: Final = re.compile(r"(Unnamed: \d+(\.\d+)*)?")
"""No name, or what pandas calls a column without one when it reads a table that it wrote."""

_FOREIGN: Final = {
    b"PAR1": "a Parquet file, and its name should end in .parquet",
    b"PK\x03\x04": "a workbook or another zip file: save it as CSV",
    b"\xd0\xcf\x11\xe0": "a workbook: save it as CSV",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"version https://git-lfs": "a pointer of Git LFS to a file that is not here: git lfs pull fetches it",
}
"""By the first bytes of a file, what is no table whatever its name."""


def found(path: Path) -> dict[str, Source]:
    """The files of a table on this machine by their names below it: one, or the Parquet files of a folder."""
    if not path.is_dir():
        return {path.name: path}
    if (path / "runs").is_dir() and (path / "sweeps").is_dir():
        raise InputError(f"{path}: is a store: sweep report NAME --store DIR analyses one of its sweeps")
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.parquet"))
    # What starts so is a temporary, or a record of whoever wrote the folder.
    return {name: path / name for name in names if not any(part[0] in "._" for part in name.split("/"))}


def read(path: Path | str, files: Mapping[str, Source]) -> pd.DataFrame:
    """The rows of all files of `path`, one below the other; InputError where one cannot be read, which is named."""
    if not files:
        raise InputError(f"{path}: is a folder without a .parquet file")
    tables = [_read(path if len(files) == 1 else f"{path}/{name}", name, source) for name, source in files.items()]
    return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)


def _read(where: Path | str, name: str, source: Source) -> pd.DataFrame:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in KINDS:
        raise InputError(f"{where}: a table is a .parquet or a .csv file (or .tsv), or a folder of .parquet files")
    try:
        _refuse_foreign(source, suffix)
        return _parquet(where, name, source) if suffix == ".parquet" else parse_csv(_content(source))
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError, csv.Error) as error:  # what Arrow raises is of these
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{where}: cannot be read as a {suffix} table: {reason}") from error


def _refuse_foreign(source: Source, suffix: str) -> None:
    """Raises ValueError where a file begins as those of another kind do."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            first = file.read(32)
    else:
        first = source[:32]
    for mark, kind in _FOREIGN.items():
        if first.startswith(mark) and not (mark == b"PAR1" and suffix == ".parquet"):
            raise ValueError(f"it is {kind}")


def parse_csv(content: bytes) -> pd.DataFrame:
    """The fields as text without spaces around it, null where missing; ValueError where lines are no table.

    The separator is the one at which the first line falls into most names; `sep=;`, as spreadsheets write it, says so.
    Columns that have neither a name nor a value are left out, as are rows without a value and a nameless column that
    counts the rows.
    """
    text = _decoded(content).lstrip("\r\n")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    first, _, rest = text.partition("\n")
    if first.strip("\r ").lower() in (f"sep={mark}" for mark in _SEPARATORS):
        separator, text = first.strip("\r ")[4:], rest
    else:
        separator = max(_SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    if not text.strip():
        raise ValueError("it is empty")
    header = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))]
    while header and not header[-1]:
        header.pop()
    return _named(header, _fields(text, separator, len(header)))


def _decoded(content: bytes) -> str:
    """Text by its mark, or by the zeros of UTF-16 without one, else UTF-8."""
    encoding = next((found for mark, found in _MARKS.items() if content.startswith(mark)), None)
    mark = len(next((mark for mark in _MARKS if content.startswith(mark)), b""))
    if encoding is None and b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content[mark:].decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        said = encoding or "UTF-8, nor marked as UTF-16"
        raise ValueError(f"byte {mark + error.start + 1} is not {said}; save it as UTF-8") from error


def _fields(text: str, separator: str, width: int) -> pa.Table:
    """All lines but the first, as columns of text."""
    names = [str(n) for n in range(width)]
    if '"' in text and width > 1:
        _check_quotes(text, separator)
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text.encode()),
            arrow_csv.ReadOptions(column_names=names),
            arrow_csv.ParseOptions(delimiter=separator, newlines_in_values='"' in text),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:  # some line has more or fewer fields than there are names: slowly, one by one
        lines = _lines(text, separator, width)
        table = pa.table({name: [line[n] for line in lines] for n, name in enumerate(names)})
    return table.slice(1)


def _check_quotes(text: str, separator: str) -> None:
    """Raises ValueError at a quotation mark that is never closed: all rows up to the next one would be its value."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    first = 1
    try:
        for _ in reader:
            first = reader.line_num + 1
    except csv.Error as error:
        said = "a quotation mark is not closed, or ends before its value does"
        raise ValueError(f"line {first}: {said} ({error})") from error


def _lines(text: str, separator: str, width: int) -> list[list[str]]:
    """The lines with a field for every name; ValueError where one has others that are not empty, or too few."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    kept = []
    for line in reader:
        while len(line) > width and not line[-1].strip():
            line.pop()
        if len(line) not in (0, width):
            hint = _why_more(separator, width) if len(line) > width else ""
            raise ValueError(f"line {reader.line_num} has {len(line)} fields, the first line {width}{hint}")
        if line:
            kept.append(line)
    return kept


def _why_more(separator: str, width: int) -> str:
    """What may be the reason, as the end of a sentence, that a line has more fields than the first."""
    if width == 1:
        return "; the first line has to name the columns"
    comma = "; numbers with a decimal comma need another separator" if separator == "," else ""
    return f"{comma}; numbers or names of rows need a column name, too"


def _named(header: list[str], fields: pa.Table) -> pd.DataFrame:
    columns: list[pd.Series] = []
    names = []
    for place, (name, column) in enumerate(zip(header, fields.columns, strict=True)):
        text = pc.utf8_trim_whitespace(column)
        values = pc.if_else(pc.is_in(text, _MISSING), pa.scalar(None, pa.string()), text).to_pandas()
        if _NAMELESS.fullmatch(name) and (values.isna().all() or _counts(values)):
            continue
        columns.append(values)
        names.append(name or f"column {place + 1}")
    rows = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    rows.columns = pd.Index(names, dtype=object)
    return rows.dropna(how="all").reset_index(drop=True)


def _counts(column: pd.Series) -> bool:
    """Whether a column holds nothing but the numbers of its rows, as pandas (from 0) and R (from 1) write them."""
    values = column.to_numpy(dtype=object)
    return any((values == np.arange(first, first + len(column)).astype(str)).all() for first in (0, 1))


def _parquet(where: Path | str, name: str, source: Source) -> pd.DataFrame:
    with pq.ParquetFile(source if isinstance(source, Path) else pa.BufferReader(source)) as file:
        check_version(where, file.schema_arrow)
        # What pandas wrote as an index is a column like the others.
        rows: pd.DataFrame = file.read().to_pandas(ignore_metadata=True)
    for folder in PurePosixPath(name).parts[:-1]:  # `width=4/part.parquet` holds rows of that width
        column, mark, level = folder.partition("=")
        if mark and column not in rows:
            rows[column] = level
    return rows


def _content(source: Source) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source
