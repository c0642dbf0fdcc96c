"""What `sweep.common.atomic_files` promises where a file cannot be written: the failure is told by the file's name."""

import errno
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.common.atomic_files import replacing

WRITERS: list[Callable[[Path], object]] = [
    lambda path: path.write_text("x"),
    lambda path: pq.write_table(pa.table({"a": [1]}), path),
]


@pytest.mark.parametrize("write", WRITERS, ids=["Python", "Arrow"])
def test_a_failure_is_told_in_few_words_by_the_name_that_was_given(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "none" / "x.parquet"
    with pytest.raises(OSError) as caught, replacing(path) as temporary:
        write(temporary)
    assert str(caught.value) == f"[Errno {errno.ENOENT}] No such file or directory: '{path}'"


def test_a_temporary_that_cannot_be_removed_hides_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(
        path: Path, missing_ok: bool = False
    ) -> None:  # as a read-only file system does, even of what is missing
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    path = tmp_path / "x.txt"
    with pytest.raises(OSError) as caught, replacing(path) as temporary:
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    with replacing(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"
