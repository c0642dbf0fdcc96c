"""What a store keeps beside the rows: search spaces, looks, failures, and how far arrays in training have come."""

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
    """The files of a store by name, and those that hold no rows.

    A file that is damaged, or of a newer version, is named on standard error, once, left out, and never touched;
    `damaged` says why, by name. With `once`, each kind of file is listed a single time.
    """

    def __init__(self, address: Path | str, once: bool, there: bool) -> None:
        self.place = Place(address, there)
        self.address, self.once = self.place.address, once
        self.damaged = Damages(self.place)
        self._listed: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def left_out(self, name: str) -> Iterator[None]:
        """Names a file that the block cannot read for what is wrong with it, and goes on behind the block."""
        try:
            yield
        except (InputError, OSError) as error:
            self.damaged.leave_out(name, error)

    def save_look(self, name: str, number: int, look: dict[str, Any]) -> None:
        """Keeps what was seen of a sweep when its results were looked at for this, the `number`th, time.

        At least `new_run_ids`, the rows that no earlier look had, and `looks`, with how many were `declared`.
        """
        self.place.write(f"looks/{name}/{number:04}.json", json.dumps(look, allow_nan=False).encode())

    def looks(self, name: str) -> dict[int, dict[str, Any]]:
        """What `save_look` kept of a sweep, by number."""
        looks = {}
        for file in self.files(f"looks/{name}", ".json"):
            with self.left_out(file):
                look = parsed(self.place.read(file))
                try:
                    _ = int(look["looks"]["declared"]), int(look["looks"].get("taken") or 0)
                    known = all(isinstance(run_id, str) for run_id in look["new_run_ids"])
                    number = int(PurePosixPath(file).stem)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise Damaged(f"is no record of a look ({error})") from error
                if not known:
                    raise Damaged("is no record of a look (its runs are no ids)")
                looks[number] = look
        return looks

    def unread_looks(self, name: str) -> list[int]:
        """The numbers of the looks at a sweep whose records `looks` left out."""
        files = [PurePosixPath(file) for file in self.damaged]
        return sorted(int(file.stem) for file in files if str(file.parent) == f"looks/{name}" and file.stem.isdecimal())

    def save_sweep(self, name: str, text: str) -> None:
        """Keeps the resolved search space of a sweep."""
        self.place.write(f"sweeps/{name}.yaml", text.encode())

    def sweeps(self) -> list[str]:
        """The names of the sweeps that were launched here."""
        return [PurePosixPath(name).stem for name in self._names("sweeps", ".yaml")]

    def sweep(self, name: str) -> bytes:
        """The search space of one sweep, as launched; InputError names those that there are."""
        known = self.sweeps()
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"no sweep {name!r} in the store {self.address}; there are: {there}")
        return self.place.read(f"sweeps/{name}.yaml")

    def save_failure(self, array_id: str, failure: dict[str, Any]) -> None:
        """Keeps the last error of an array."""
        text = without_secrets(json.dumps(failure, indent=2, allow_nan=False))
        self.place.write(f"failures/{array_id}.json", text.encode())

    def clear_failures(self, done: Collection[str]) -> None:
        """Forgets the errors of arrays whose runs are all done by now."""
        for array_id, failure in self.failures().items():
            if all(run_id in done for run_id in failure["run_ids"]):
                self.place.remove(f"failures/{array_id}.json")

    def failures(self) -> dict[str, dict[str, Any]]:
        """The last error of every array that failed since it last succeeded: `error`, `run_ids`, `traceback`.

        Where one is damaged, its runs are missing all the same, and the next launch trains them.
        """
        found = {}
        for name in self.files("failures", ".json"):
            # Another launch may have cleared it meanwhile.
            with contextlib.suppress(FileNotFoundError), self.left_out(name):
                failure = parsed(self.place.read(name))
                run_ids = failure.get("run_ids") if isinstance(failure, dict) else None
                if not isinstance(run_ids, list) or not all(isinstance(run_id, str) for run_id in run_ids):
                    raise Damaged("is no note of a failure")
                found[PurePosixPath(name).stem] = failure
        return found

    def checkpoint(self, array_id: str) -> str:
        """The name of what keeps how far an array in training has come."""
        return f"checkpoints/{array_id}{SUFFIX}"

    def tidy(self, done: Collection[str]) -> dict[str, frozenset[str]]:
        """Removes checkpoints of arrays whose runs are all done, temporaries and leases of the dead.

        Returns the runs of the checkpoints that stay, by name.
        """
        for folder in (".", "runs", "curves", "checkpoints", "sweeps", "failures", "leases"):
            self.place.clear_temporaries(folder)
        leases.tidy(self.place)
        kept = {}
        for name in self.files("checkpoints", SUFFIX):
            # Whoever trains it may have finished meanwhile; what cannot be read for another reason is left alone.
            with contextlib.suppress(OSError), self.left_out(name):
                runs = self._checkpointed(name)
                if all(run_id in done for run_id in runs):
                    self.place.remove(name)
                else:
                    kept[name] = frozenset(runs)
        return kept

    def report_folder(self, name: str) -> str:
        """Where the report of a sweep is kept, below the store."""
        return f"reports/{name}"

    def _checkpointed(self, name: str) -> list[str]:
        """The runs of a checkpoint."""
        length = self.place.read(name, 8)
        header = self.place.read(name, 8 + min(int.from_bytes(length, "little"), 2**28))
        while header[:8] != length:  # whoever trains the array has put the next one in its place meanwhile
            length = header[:8]
            header = self.place.read(name, 8 + min(int.from_bytes(length, "little"), 2**28))
        try:
            runs = list(read_header(header)["run_ids"])
        except (ValueError, KeyError, TypeError, RecursionError):
            runs = []
        if not runs or not all(isinstance(run_id, str) for run_id in runs):
            raise Damaged("is no checkpoint")
        return runs

    def _names(self, kind: str, suffix: str) -> list[str]:
        if kind in self._listed:
            return self._listed[kind]
        names = self.files(kind, suffix)
        if self.once:
            self._listed[kind] = names
        return names

    def files(self, folder: str, suffix: str) -> list[str]:
        """The files of a folder that end so; what ends so and is none is named."""
        for name, why in self.place.no_files(folder, suffix).items():
            self.damaged.leave_out(name, Damaged(why))
        return self.place.files(folder, suffix)
