"""Data sets: which there are, getting one, and looking at its pictures."""

import dataclasses
import difflib
import re
from pathlib import Path

from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.data.library import Library, Listing, Verified
from sweep.space import catalogue


@dataclasses.dataclass(frozen=True)
class Look:
    """What `sweep datasets --show` found: pictures of every class by part, what is odd, and the contact sheet."""

    name: str
    fingerprint: str
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    file: str


def datasets(library: Library) -> list[Listing]:
    """Every named data set, and whether it is on this machine."""
    return library.listing()


def download(library: Library, name: str) -> Listing:
    """Gets a data set, checks and caches it; InputError for a name that there is not."""
    if catalogue.path_of(_known(name)):
        raise InputError(f"--download {name}: only named data sets can be downloaded: {', '.join(catalogue.CATALOGUE)}")
    library.load(name)
    return next(each for each in library.listing() if each.name == name)


def verify(library: Library, name: str, image_size: int | None) -> Verified:
    """Reads a data set's files anew, compares them with what was kept of them, and keeps what is there now."""
    name = _known(name)
    _check_size(name, image_size)
    return library.verify(name, image_size)


def show(library: Library, name: str, image_size: int | None, to: Path | None) -> Look:
    """Writes a contact sheet of a data set's training pictures and counts its classes, at split 0."""
    from sweep.data import contact_sheet

    name = _known(name)
    path = addresses.local(to, "--out") if to else Path(f"{Path(catalogue.path_of(name) or name).stem}-pictures.png")
    _check_size(name, image_size)
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {path}: the name must end in .png")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: {'is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    data = library.load(name, 0, image_size)
    contact_sheet.write(data, path)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = {
        class_name: {part: int((labels == label).sum()) for part, (_, labels) in parts.items()}
        for label, class_name in enumerate(data.pool.class_names)
    }
    return Look(name, data.fingerprint, counts, data.notes, str(path))


def _check_size(name: str, image_size: int | None) -> None:
    if image_size is not None and catalogue.kind(name) != "folder":
        raise InputError(
            f"--image-size {image_size}: only the pictures of folder:PATH can be resized, not those of {name}"
        )


def _known(name: str) -> str:
    """The name of a data set, its path as `addresses.local` reads it; InputError where there is no such data set."""
    if re.fullmatch(catalogue.PATTERN, name):
        kind, path = catalogue.kind(name), catalogue.path_of(name)
        return f"{kind}:{addresses.local(path, kind)}" if path else name
    near = difflib.get_close_matches(name[:64], catalogue.CHOICES, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(catalogue.CHOICES)}"
    if name and Path(name).exists():
        hint = f"did you mean '{'folder' if Path(name).is_dir() else 'npz'}:{name}'?"
    raise InputError(f"no data set {name!r}; {hint}")
