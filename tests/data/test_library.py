"""The data sets of this machine: found, checked, read once, downloaded from a real server."""

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.real_formats import (
    cifar_files,
    letter_files,
    pictures,
    png,
    publish,
    trust,
    write_cifar,
    write_emnist,
    write_folder,
    write_mnist,
    write_svhn,
    write_tar,
)

from sweep.common.errors import InputError
from sweep.data import download, library, readers
from sweep.data.download import NotHere
from sweep.data.formats import cifar, idx, mat, trees
from sweep.data.library import Library
from sweep.space.catalogue import CATALOGUE

PUBLIC = {
    "mnist": lambda folder: write_mnist(folder),
    "fashion_mnist": lambda folder: write_mnist(folder, "FashionMNIST"),
    "kmnist": lambda folder: write_mnist(folder, "KMNIST"),
    "emnist_letters": write_emnist,
    "svhn": write_svhn,
    "cifar10": write_cifar,
    "cifar100": lambda folder: write_cifar(folder, 100, each=200),
    "notmnist": lambda folder: write_tar(folder / "notMNIST_small.tar.gz", letter_files().items()),
}


@pytest.fixture(params=PUBLIC)
def public(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A public data set, and a data folder with small files of its format."""
    folder = tmp_path / "data"
    PUBLIC[request.param](folder)
    trust(monkeypatch, folder)
    return request.param, folder


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every reader that is called from now on."""
    called: list[str] = []
    modules = {idx: ("mnist", "emnist_letters"), mat: ("svhn",), cifar: ("cifar_archive", "cifar_folder")}
    modules[trees] = ("picture_archive", "picture_folder", "pool_of")
    for module, name in ((module, name) for module, names in modules.items() for name in names):

        def noted(*arguments: object, name: str = name, real: object = getattr(module, name)) -> object:
            called.append(name)
            return real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(module, name, noted)
    return called


# The catalogue


def test_identities_of_public_sets_stand_for_their_checksums() -> None:
    for name, source in CATALOGUE.items():
        if source.own_test:
            checksums = " ".join(str(file.md5) for file in source.files)
            assert source.identity == hashlib.sha256(checksums.encode()).hexdigest()[:16], name


def test_files_addresses_and_checksums_are_those_of_torchvision() -> None:
    """And they lie where torchvision puts them: a folder that it has filled is found as it is."""
    from torchvision import datasets

    def files(name: str) -> list[tuple[str, tuple[str, ...], str | None]]:
        return [(file.path, file.urls, file.md5) for file in CATALOGUE[name].files]

    for name, kin in {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}.items():
        cls = getattr(datasets, kin)
        assert files(name) == [
            (f"{kin}/raw/{file}", tuple(mirror + file for mirror in cls.mirrors), md5) for file, md5 in cls.resources
        ]
    emnist = datasets.EMNIST
    assert files("emnist_letters") == [(f"EMNIST/raw/{os.path.basename(emnist.url)}", (emnist.url,), emnist.md5)]
    parts = [datasets.SVHN.split_list[part] for part in ("train", "test")]
    assert files("svhn") == [(file, (url,), md5) for url, file, md5 in parts]
    for name, cls in {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}.items():
        assert files(name) == [(cls.filename, (cls.url,), cls.tgz_md5)]
        unpacked = CATALOGUE[name].unpacked
        assert unpacked is not None and unpacked.folder == cls.base_folder
        inside = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
        assert list(unpacked.files) == [(file, md5) for file, md5 in inside]


def test_every_source_has_a_reader_and_names_as_many_classes_as_it_has() -> None:
    for name, source in CATALOGUE.items():
        assert source.format in readers.READERS or source.format == "fonts", name
        assert len(source.class_names) == source.classes or source.format == "cifar", name
        assert source.unpacked is None or source.format in readers.OF_FOLDERS, name


def test_published_sizes_add_up() -> None:
    published = {"mnist": (60_000, 10_000), "emnist_letters": (124_800, 20_800), "svhn": (73_257, 26_032)}
    published |= dict.fromkeys(("fashion_mnist", "kmnist"), (60_000, 10_000))
    published |= dict.fromkeys(("cifar10", "cifar100"), (50_000, 10_000))
    for name, (train, test) in published.items():
        entry = CATALOGUE[name]
        assert entry.train is not None and entry.validation is not None
        assert (entry.train + entry.validation, entry.test) == (train, test)


# Reading, once


def test_a_public_set_is_read_once_and_kept_until_its_files_change(
    public: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = public
    called = reads(monkeypatch)
    first = Library(folder, downloads=False).load(name)
    assert first.picture_shape == CATALOGUE[name].picture and first.classes == CATALOGUE[name].classes
    assert called
    called.clear()
    again = Library(folder, downloads=False).load(name)
    assert called == [] and again.fingerprint == first.fingerprint and again.notes == first.notes
    for part in ("train", "validation", "test"):
        for one, other in zip(getattr(first, part), getattr(again, part), strict=True):
            np.testing.assert_array_equal(one, other)
    file = folder / CATALOGUE[name].files[0].path
    os.utime(file, ns=(1, 1))
    Library(folder, downloads=False).load(name)
    assert called


def test_what_was_read_once_serves_without_its_files(public: tuple[str, Path]) -> None:
    name, folder = public
    first = Library(folder, downloads=False).load(name)
    for file in CATALOGUE[name].files:
        (folder / file.path).unlink()
    alone = Library(folder, downloads=False)
    assert alone.here(name) and alone.load(name).fingerprint == first.fingerprint


def test_a_truncated_or_altered_file_is_refused_with_both_checksums_and_nothing_is_cached(
    public: tuple[str, Path],
) -> None:
    name, folder = public
    file = folder / CATALOGUE[name].files[-1].path
    whole = file.read_bytes()
    for damaged in (whole[:-7], whole[:-9] + b"x" + whole[-8:]):
        file.write_bytes(damaged)
        with pytest.raises(InputError) as refused:
            Library(folder, downloads=False).load(name)
        assert str(file) in str(refused.value)
        if name != "notmnist":
            md5 = hashlib.md5(damaged).hexdigest()
            assert f"truncated or altered (MD5 {md5}, expected {hashlib.md5(whole).hexdigest()})" in str(refused.value)
    assert not (folder / "cache").exists()


def test_a_damaged_cache_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PUBLIC["notmnist"](tmp_path)
    first = Library(tmp_path).load("notmnist")
    [kept] = (tmp_path / "cache").iterdir()
    content = kept.read_bytes()
    called = reads(monkeypatch)
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    for damaged in (content[:100], content[:-1000], flipped, b""):
        kept.write_bytes(damaged)
        assert Library(tmp_path).load("notmnist").fingerprint == first.fingerprint
        assert called.pop() == "picture_archive" and kept.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    PUBLIC["notmnist"](tmp_path)
    (tmp_path / "cache").write_text("in the way")
    assert len(Library(tmp_path).load("notmnist").test[1]) == 60


def test_notmnist_s_unpacked_folder_serves_as_well_as_its_archive(tmp_path: Path) -> None:
    PUBLIC["notmnist"](tmp_path / "packed")
    write_folder(tmp_path / "unpacked", letter_files())
    packed, unpacked = (Library(tmp_path / name, downloads=False) for name in ("packed", "unpacked"))
    assert unpacked.here("notmnist")
    assert packed.load("notmnist").fingerprint == unpacked.load("notmnist").fingerprint


def test_cifar_s_unpacked_folder_serves_where_every_file_has_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = {f"cifar-10-batches-py/{name}": content for name, content in cifar_files().items()}
    write_folder(tmp_path / "unpacked", inside)
    write_cifar(tmp_path / "packed")
    trust(monkeypatch, tmp_path / "unpacked")
    trust(monkeypatch, tmp_path / "packed")
    shelf = Library(tmp_path / "unpacked", downloads=False)
    assert shelf.here("cifar10")
    assert shelf.load("cifar10").fingerprint == Library(tmp_path / "packed").load("cifar10").fingerprint
    changed = tmp_path / "unpacked" / "cifar-10-batches-py" / "data_batch_3"
    changed.write_bytes(changed.read_bytes() + b"x")
    with pytest.raises(InputError, match="data_batch_3 is truncated or altered"):
        Library(tmp_path / "unpacked", downloads=False).load("cifar10")
    changed.unlink()
    with pytest.raises(InputError, match=r"there is no .*data_batch_3"):
        Library(tmp_path / "unpacked", downloads=False).load("cifar10")


def test_no_picture_of_notmnist_is_in_two_parts_and_repeats_are_counted(tmp_path: Path) -> None:
    files = letter_files()
    files |= {name.replace("/0", "/copy0"): content for name, content in files.items() if "/0" in name}
    write_tar(tmp_path / "notMNIST_small.tar.gz", files.items())
    loaded = Library(tmp_path).load("notmnist")
    parts = [{picture.tobytes() for picture in part[0]} for part in (loaded.train, loaded.validation, loaded.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert len(set.union(*parts)) == 300
    assert any("pictures left out: the same pixels are in a held-out part" in note for note in loaded.notes)


# Folders and arrays


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    images, labels = pictures(60, 3, (6, 6))
    files = {f"{'abc'[label]}/{n}.png": png(image) for n, (image, label) in enumerate(zip(images, labels, strict=True))}
    return write_folder(tmp_path / "tree", files)


def test_a_folder_s_facts_are_of_its_pixels_and_come_from_the_cache_until_it_changes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "data"
    first = Library(shelf).facts(f"folder:{tree}")
    assert (first.picture, first.classes, first.train) == ((1, 6, 6), 3, 42)
    called = reads(monkeypatch)
    assert Library(shelf).facts(f"folder:{tree}") == first and called == []
    moved = tree.rename(tmp_path / "moved")
    assert Library(shelf).facts(f"folder:{moved}").identity == first.identity
    (moved / "a" / "new.png").write_bytes(png(np.zeros((6, 6), np.uint8)))
    assert Library(shelf).facts(f"folder:{moved}").identity != first.identity


def test_class_folders_that_are_links_are_followed_and_seen_to_change(tree: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in "abc":
        (linked / name).symlink_to(tree / name)
    shelf = tmp_path / "data"
    first = Library(shelf).facts(f"folder:{linked}")
    assert first.train == 42 and Library(shelf).here(f"folder:{linked}")
    (tree / "a" / "new.png").write_bytes(png(np.zeros((6, 6), np.uint8)))
    assert Library(shelf).facts(f"folder:{linked}").identity != first.identity
    (linked / "d").mkdir()
    pool = Library(shelf).pool(f"folder:{linked}")
    assert pool.class_names == ("a", "b", "c") and pool.notes == ("1 folder without pictures left out: d",)


def test_links_to_nothing_and_names_that_are_no_text_are_named_and_skipped(tree: Path, tmp_path: Path) -> None:
    (tree / "a" / "dead.png").symlink_to("/nowhere")
    os.rename(os.fsencode(tree / "c"), os.fsencode(tree) + b"/caf\xe9")
    shelf = Library(tmp_path / "data")
    pool = shelf.pool(f"folder:{tree}")
    assert pool.class_names == ("a", "b", "caf\\xe9") and len(pool.labels) == 60
    assert pool.notes == ("1 link to nothing left out: a/dead.png",)
    assert Library(tmp_path / "data").pool(f"folder:{tree}").class_names == pool.class_names


@pytest.mark.integration
def test_a_cache_that_may_not_be_written_is_no_hindrance(tree: Path, tmp_path: Path) -> None:
    """As another user, or on a full disk: the library that writes the cache has errors of its own."""
    program = (
        "import resource, sys; from pathlib import Path; from sweep.data.library import Library\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "print(Library(Path(sys.argv[1])).facts(sys.argv[2]).train)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data"), f"folder:{tree}"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "42", done.stderr
    assert list((tmp_path / "data" / "cache").iterdir()) == []


def test_another_size_is_another_identity_and_another_place_in_the_cache(tree: Path, tmp_path: Path) -> None:
    shelf = Library(tmp_path / "data")
    small, large = (shelf.facts(f"folder:{tree}", size) for size in (4, 12))
    assert small.picture == (1, 4, 4) and large.picture == (1, 12, 12) and small.identity != large.identity
    assert shelf.load(f"folder:{tree}", 0, 4).picture_shape == (1, 4, 4)
    assert len(list((tmp_path / "data" / "cache").iterdir())) == 2


def test_arrays_and_the_folder_with_the_same_pictures_have_the_same_pixels(tree: Path, tmp_path: Path) -> None:
    shelf = Library(tmp_path / "data")
    pool = shelf.pool(f"folder:{tree}")
    np.savez(tmp_path / "x.npz", images=pool.pictures[:, 0], labels=pool.labels)
    assert shelf.pool(f"npz:{tmp_path / 'x.npz'}").fingerprint == pool.fingerprint


def as_before(path: Path, change: Callable[[], object]) -> None:
    """Changes a file, and sets its times back to what they were."""
    status = path.stat()
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swapped(one: Path, other: Path) -> None:
    """Moves two files to each other's place, which changes neither size nor times."""
    aside = one.parent.parent / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def overwritten(one: Path, other: Path) -> None:
    """Writes each file's bytes into the other, in place."""
    contents = one.read_bytes(), other.read_bytes()
    as_before(one, lambda: one.write_bytes(contents[1]))
    as_before(other, lambda: other.write_bytes(contents[0]))


def relinked(one: Path, other: Path) -> None:
    """Links to files elsewhere, of one size and time, are exchanged."""
    targets = os.readlink(one), os.readlink(other)
    for path, target in ((one, targets[1]), (other, targets[0])):
        path.unlink()
        path.symlink_to(target)


@pytest.mark.parametrize("change", [swapped, overwritten, relinked])
def test_pictures_that_changed_places_are_noticed_though_sizes_and_times_are_kept(
    change: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    shelf, root, store = tmp_path / "data", tmp_path / "tree", tmp_path / "store"
    for n, name in enumerate("ab" * 10):
        place = root / name / f"{n // 2}.bmp"
        file = place if change is not relinked else store / f"{n}.bmp"
        write_folder(file.parent, {file.name: png(np.full((4, 4), n, np.uint8), "BMP")})
        os.utime(file, ns=(1, 1))
        if file != place:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
    for folder in (root / "a", root / "b"):
        os.utime(folder, ns=(1, 1))
    first = Library(shelf).facts(f"folder:{root}")
    assert Library(shelf).facts(f"folder:{root}") == first
    change(root / "a" / "0.bmp", root / "b" / "0.bmp")
    for folder in (root / "a", root / "b"):
        os.utime(folder, ns=(1, 1))
    after = Library(shelf).facts(f"folder:{root}")
    assert after.identity != first.identity
    assert after.identity == Library(tmp_path / "other").facts(f"folder:{root}").identity


def test_a_cache_of_the_reading_before_is_not_served_for_a_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "data"
    with monkeypatch.context() as before:
        before.setattr(library, "READINGS", {})
        Library(shelf).load(f"folder:{tree}")
    called = reads(monkeypatch)
    Library(shelf).load(f"folder:{tree}")
    Library(shelf).load(f"folder:{tree}")
    assert called == ["pool_of"]


def test_verifying_reads_the_files_and_replaces_what_is_kept_if_it_is_stale(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, name = tmp_path / "data", f"folder:{tree}"
    assert Library(shelf).verify(name).kept is None
    first = Library(shelf).verify(name)
    assert first.kept == first.fingerprint
    monkeypatch.setattr(library._Input, "signature", lambda _: "nothing is noticed")
    Library(shelf).verify(name)
    (tree / "a" / "new.png").write_bytes(png(np.zeros((6, 6), np.uint8)))
    assert Library(shelf).facts(name).identity == first.fingerprint  # stale
    verified = Library(shelf).verify(name)
    assert verified.kept == first.fingerprint != verified.fingerprint
    assert Library(shelf).facts(name).identity == verified.fingerprint


def test_verifying_tells_what_was_kept_of_files_that_have_changed_since(tree: Path, tmp_path: Path) -> None:
    shelf, name = tmp_path / "data", f"folder:{tree}"
    before = Library(shelf).facts(name).identity
    (tree / "a" / "new.png").write_bytes(png(np.zeros((6, 6), np.uint8)))
    verified = Library(shelf).verify(name)
    assert verified.kept == before != verified.fingerprint


@pytest.mark.parametrize("said", ["[]", "{}", "x", '{"version": 1, "reading": 3}'])
def test_a_cache_that_says_nothing_of_use_is_read_anew(said: str, tree: Path, tmp_path: Path) -> None:
    shelf, name = tmp_path / "data", f"folder:{tree}"
    facts = Library(shelf).facts(name)
    [cache] = (shelf / "cache").iterdir()
    save_file(load_file(cache), cache, {"sweep": said})
    assert Library(shelf).facts(name) == facts and Library(shelf).here(name)


def test_verifying_says_so_where_the_cache_cannot_be_replaced(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, name = tmp_path / "data", f"folder:{tree}"
    monkeypatch.setattr(library._Input, "signature", lambda _: "nothing is noticed")
    Library(shelf).verify(name)
    (tree / "a" / "new.png").write_bytes(png(np.zeros((6, 6), np.uint8)))

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(library, "save_file", full)
    with pytest.raises(InputError, match="is stale and cannot be replaced; remove it"):
        Library(shelf).verify(name)


def test_public_and_embedded_sets_are_verified_too(public: tuple[str, Path]) -> None:
    name, folder = public
    shelf = Library(folder, downloads=False)
    loaded = shelf.load(name).fingerprint
    assert shelf.verify(name) == library.Verified(name, loaded, loaded)
    digits = CATALOGUE["digits"].identity
    assert shelf.verify("digits") == library.Verified("digits", str(digits), digits)
    (folder / CATALOGUE[name].files[0].path).write_bytes(b"other")
    with pytest.raises(InputError):
        shelf.verify(name)


@pytest.mark.parametrize("dataset", ["folder:/nowhere", "npz:/nowhere.npz", "notmnist", "mnist", "cifar10"])
def test_what_is_not_here_is_said_to_be_not_here(dataset: str, tmp_path: Path) -> None:
    shelf = Library(tmp_path / "data", downloads=False)
    assert not shelf.here(dataset)
    with pytest.raises(NotHere, match=f"data set '{dataset}'"):
        shelf.load(dataset)
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match=r"--data-dir .*: is a file"):
        Library(tmp_path / "data")


def test_the_listing_names_every_set_with_what_is_known_of_it(tmp_path: Path) -> None:
    PUBLIC["notmnist"](tmp_path)
    PUBLIC["mnist"](tmp_path)
    listed = {each.name: each for each in Library(tmp_path, fonts=tmp_path).listing()}
    assert list(listed) == list(CATALOGUE)
    here = {name for name, each in listed.items() if each.here}
    assert here == {"mnist5k", "digits", "mnist", "notmnist"}
    assert (listed["notmnist"].train, listed["notmnist"].test) == (None, None)
    Library(tmp_path).load("notmnist")
    after = {each.name: each for each in Library(tmp_path).listing()}["notmnist"]
    assert (after.train, after.validation, after.test) == (210, 30, 60)


# Downloads


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server of the files below a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/", served
        running.shutdown()


def test_missing_files_are_downloaded_from_the_first_mirror_that_serves_and_checked(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address, served = server
    write_mnist(served)
    trust(monkeypatch, served)
    publish(monkeypatch, "mnist", f"{address}nothing/", f"{address}MNIST/raw/")
    folder = tmp_path / "data"
    loaded = Library(folder).load("mnist")
    assert len(loaded.test[1]) == 40
    paths = sorted(file.path for file in CATALOGUE["mnist"].files)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.gz")) == paths
    assert "100%" in capsys.readouterr().err  # a progress bar
    for name in paths:
        (served / name).unlink()
    assert Library(folder).load("mnist").fingerprint == loaded.fingerprint


def test_a_download_with_another_checksum_is_not_kept(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = server
    path = write_cifar(served)
    trust(monkeypatch, served)
    publish(monkeypatch, "cifar10", address)
    path.write_bytes(path.read_bytes()[:-100])
    folder = tmp_path / "data"
    with pytest.raises(NotHere) as refused:
        Library(folder).load("cifar10")
    said = str(refused.value)
    assert "the downloaded file has the wrong checksum" in said and address in said
    assert f"put it at {folder / 'cifar-10-python.tar.gz'} (MD5 {CATALOGUE['cifar10'].files[0].md5})" in said
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_an_archive_without_checksum_that_did_not_come_whole_is_not_kept(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = server
    whole = write_tar(served / "good" / "notMNIST_small.tar.gz", letter_files().items()).read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "page": b"<html>log in first</html>"}.items():
        (served / name).mkdir()
        (served / name / "notMNIST_small.tar.gz").write_bytes(content)
    folder = tmp_path / "data"
    publish(monkeypatch, "notmnist", f"{address}half/", f"{address}page/")
    with pytest.raises(NotHere) as refused:
        Library(folder).load("notmnist")
    assert str(refused.value).count("the downloaded file: is damaged, or is not a .tar.gz archive") == 2
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    publish(monkeypatch, "notmnist", f"{address}half/", f"{address}good/")
    assert len(Library(folder).load("notmnist").test[1]) == 60


def test_offline_with_nothing_cached_says_what_was_tried_and_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A port that nothing listens on.
    publish(monkeypatch, "mnist", "http://127.0.0.1:9/one/", "http://127.0.0.1:9/two/")
    with pytest.raises(NotHere) as refused:
        Library(tmp_path).load("mnist")
    said, first = str(refused.value), CATALOGUE["mnist"].files[0]
    name, md5 = Path(first.path).name, first.md5
    assert said.count(f"http://127.0.0.1:9/one/{name}: ") == said.count(f"http://127.0.0.1:9/two/{name}: ") == 1
    assert "refused" in said and f"put it at {tmp_path / 'MNIST' / 'raw' / name} (MD5 {md5})" in said


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publish(monkeypatch, "cifar10", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(NotHere, match="timed out"):
            Library(tmp_path).load("cifar10")
    assert socket.getdefaulttimeout() is None


def test_the_cache_s_version_is_part_of_what_makes_it_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PUBLIC["notmnist"](tmp_path)
    Library(tmp_path).load("notmnist")
    called = reads(monkeypatch)
    monkeypatch.setattr(library, "CACHE_VERSION", library.CACHE_VERSION + 1)
    Library(tmp_path).load("notmnist")
    assert called == ["picture_archive"]
