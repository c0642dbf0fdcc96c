"""What a store keeps beside the rows: search spaces, looks, failures, and checkpoints of arrays in training."""

import contextlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sweep.common.errors import InputError
from sweep.common.redaction import without_secrets
from sweep.store import leases
from sweep.store.checkpoint_header import SUFFIX, read_header
from sweep.store.damage import Damaged, Damages, parsed
from sweep.store.storage import Place


class Records:
    """The files of a store, and the records that are not rows.

    A file that is damaged, or from a newer version, is named on standard error once, left out, and never touched;
    `damaged` says why, by name. With `once`, each kind of file is listed only once.
    """

    def __init__(self, address: Path | str, once: bool, there: bool) -> None:
        self.place = Place(address, there)
        self.address, self.once = self.place.address, once
        self.damaged = Damages(self.place)
        self._listed: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def left_out(self, name: str) -> Iterator[None]:
        """If the block cannot read the file because it is damaged, names it and continues after the block."""
        try:
            yield
        except (InputError, OSError) as error:
            self.damaged.leave_out(name, error)

    def save_look(self, name: str, number: int, look: dict[str, Any]) -> None:
        """Saves the `number`th look at the results of a sweep.

        It holds at least `new_run_ids`, the rows that no earlier look had, and `looks`, with how many were `declared`.
        """
        self.place.write(f"looks/{name}/{number:04}.json", json.dumps(look, allow_nan=False).encode())

    def looks(self, name: str) -> dict[int, dict[str, Any]]:
        """The looks at a sweep that `save_look` saved, by number."""
        looks = {}
        for file in self.files(f"looks/{name}", ".json"):
            with self.left_out(file):
                look = parsed(self.place.read(file))
                try:
                    _ = int(look["looks"]["declared"]), int(look["looks"].get("taken") or 0)
                    known = all(isinstance(run_id, str) for run_id in look["new_run_ids"])
                    number = int(PurePosixPath(file).stem)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise Damaged(f"is not a record of a look ({error})") from error
                if not known:
                    raise Damaged("is not a record of a look (its runs are not ids)")
                looks[number] = look
        return looks

    def last_look(self, name: str) -> int:
        """The number of the last look at a sweep, whether or not it can be read; 0 if there was none."""
        files = map(PurePosixPath, [*self.files(f"looks/{name}", ".json"), *self.damaged])
        numbers = [file.stem for file in files if str(file.parent) == f"looks/{name}" and file.stem.isdecimal()]
        return max(map(int, numbers), default=0)

    def save_sweep(self, name: str, text: str) -> None:
        """Saves the resolved search space of a sweep."""
        self.place.write(f"sweeps/{name}.yaml", text.encode())

    def sweeps(self) -> list[str]:
        """The names of the sweeps that were launched here."""
        return [PurePosixPath(name).stem for name in self._names("sweeps", ".yaml")]

    def sweep(self, name: str) -> bytes:
        """The search space of one sweep, as launched; InputError names the existing sweeps."""
        known = self.sweeps()
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"no sweep {name!r} in the store {self.address}; there are: {there}")
        return self.place.read(f"sweeps/{name}.yaml")

    def save_failure(self, array_id: str, failure: dict[str, Any]) -> None:
        """Saves the last error of an array."""
        text = without_secrets(json.dumps(failure, indent=2, allow_nan=False))
        self.place.write(f"failures/{array_id}.json", text.encode())

    def clear_failures(self, done: Collection[str]) -> None:
        """Removes the errors of arrays whose runs are all done by now."""
        for array_id, failure in self.failures().items():
            if all(run_id in done for run_id in failure["run_ids"]):
                self.place.remove(f"failures/{array_id}.json")

    def failures(self) -> dict[str, dict[str, Any]]:
        """The last error of every array that failed since it last succeeded: `error`, `run_ids`, `traceback`.

        Even if such a file is damaged, its runs count as missing, and the next launch trains them.
        """
        found = {}
        for name in self.files("failures", ".json"):
            # Another launch may have removed it in the meantime.
            with contextlib.suppress(FileNotFoundError), self.left_out(name):
                failure = parsed(self.place.read(name))
                run_ids = failure.get("run_ids") if isinstance(failure, dict) else None
                if not isinstance(run_ids, list) or not all(isinstance(run_id, str) for run_id in run_ids):
                    raise Damaged("is not a record of a failure")
                found[PurePosixPath(name).stem] = failure
        return found

    def checkpoint(self, array_id: str) -> str:
        """The name of the checkpoint of an array in training."""
        return f"checkpoints/{array_id}{SUFFIX}"

    def tidy(self, done: Collection[str]) -> dict[str, frozenset[str]]:
        """Removes checkpoints of arrays whose runs are all done, and temporary files and leases of dead processes.

        Returns the runs of the remaining checkpoints, by name.
        """
        for folder in (".", "runs", "curves", "checkpoints", "sweeps", "failures", "leases"):
            self.place.clear_temporaries(folder)
        leases.tidy(self.place)
        kept = {}
        for name in self.files("checkpoints", SUFFIX):
            # Its training may just have finished; what cannot be read for another reason is left alone.
            with contextlib.suppress(OSError), self.left_out(name):
                runs = self._checkpointed(name)
                if all(run_id in done for run_id in runs):
                    self.place.remove(name)
                else:
                    kept[name] = frozenset(runs)
        return kept

    def report_folder(self, name: str) -> str:
        """The folder of a sweep's report, relative to the store."""
        return f"reports/{name}"

    def _checkpointed(self, name: str) -> list[str]:
        """The runs of a checkpoint."""
        length = self.place.read(name, 8)
        header = self.place.read(name, 8 + min(int.from_bytes(length, "little"), 2**28))
        while header[:8] != length:  # it was replaced by the next checkpoint between the two reads
            length = header[:8]
            header = self.place.read(name, 8 + min(int.from_bytes(length, "little"), 2**28))
        try:
            runs = list(read_header(header)["run_ids"])
        except (ValueError, KeyError, TypeError, RecursionError):
            runs = []
        if not runs or not all(isinstance(run_id, str) for run_id in runs):
            raise Damaged("is not a checkpoint")
        return runs

    def _names(self, kind: str, suffix: str) -> list[str]:
        if kind in self._listed:
            return self._listed[kind]
        names = self.files(kind, suffix)
        if self.once:
            self._listed[kind] = names
        return names

    def files(self, folder: str, suffix: str) -> list[str]:
        """The files of a folder with this suffix; anything else with this suffix is named as damaged."""
        for name, why in self.place.no_files(folder, suffix).items():
            self.damaged.leave_out(name, Damaged(why))
        return self.place.files(folder, suffix)
