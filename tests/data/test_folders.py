"""Which folders are classes, which files are theirs, and what is left out: counted, and named by kind."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.real_formats import pictures, png, write_folder

from sweep.common.errors import InputError
from sweep.data.formats.folders import scan
from sweep.data.formats.trees import picture_folder
from sweep.data.pool import Pool

IMAGES = [png(image) for image in pictures(12, 1, (6, 6))[0]]


def classes(*names: str, each: int = 3) -> dict[str, bytes]:
    """A few pictures in each of these folders."""
    return {f"{name}/{n}.png": IMAGES[n] for name in names for n in range(each)}


def read(root: Path) -> Pool:
    return picture_folder(root, None)


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as refused:
        read(root)
    assert str(refused.value).startswith(str(root)) and "\n" not in str(refused.value)
    return str(refused.value)


# Parts of a data set are no classes

LAYOUTS = {
    "train and val": ("train", "val"),
    "train, val and test": ("train", "val", "test"),
    "capitals": ("Train", "TEST"),
    "long names": ("training", "validation"),
    "sets": ("train_set", "test_set"),
    "years": ("train2017", "val2017"),
    "other words": ("trn", "dev"),
    "with what is no part": ("train", "test", "extra"),
    "no training": ("valid", "test"),
    "a name in common": ("seg_train", "seg_test"),
    "a longer one": ("asl_alphabet_train", "asl_alphabet_test"),
    "in front": ("images-train", "images-val"),
    "numbered": ("1 train", "2 test"),
    "by domain": ("trainA", "testA", "trainB", "testB"),
    "held out": ("train", "holdout"),
    "without labels": ("train", "unlabeled"),
    "all but the test": ("trainval", "test"),
    "masks": ("images", "masks"),
    "labels": ("train_images", "train_labels"),
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_of_parts_is_refused_with_the_way_out(names: tuple[str, ...], tmp_path: Path) -> None:
    inside = [f"{part}/{name}" for part in names for name in ("cat", "dog")]
    said = refusal(write_folder(tmp_path / "deep", classes(*inside)))
    assert f"subfolders '{names[0]}' and '{names[1]}'" in said and "are parts of a data set, not classes" in said
    assert f"folder:{tmp_path / 'deep' / names[0]}" in said and "one folder per class" in said
    flat = refusal(write_folder(tmp_path / "flat", classes(*names)))  # without classes below
    assert "are parts of a data set, not classes" in flat
    assert read(tmp_path / "deep" / names[0]).class_names == ("cat", "dog")  # the way out


def test_a_part_without_pictures_makes_the_other_no_class(tmp_path: Path) -> None:
    write_folder(tmp_path, classes("train/cat", "train/dog"))
    (tmp_path / "val").mkdir()
    assert f"folder:{tmp_path / 'train'}" in refusal(tmp_path)


def test_parts_one_level_down_are_seen(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("archive/Train/cat", "archive/Train/dog", "archive/Test/cat"))
    assert f"folder:{root / 'archive' / 'Train'}" in refusal(root)


def test_parts_below_every_class_are_refused_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("cat/train", "cat/test", "dog/train", "dog/test"))
    assert "put the pictures of a class, and nothing else, into one folder" in refusal(root)


def test_masks_beside_the_pictures_of_every_class_are_no_pictures_of_it(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("COVID/images", "COVID/masks", "Normal/images", "Normal/masks"))
    assert "put the pictures of a class, and nothing else, into one folder" in refusal(root)


@pytest.mark.parametrize("names", [("fold1", "fold2", "fold3"), ("batch_1", "batch_2"), ("training", "validierung")])
def test_classes_that_hold_the_same_subfolders_are_asked_about(names: tuple[str, ...], tmp_path: Path) -> None:
    pool = read(write_folder(tmp_path, classes(*(f"{name}/{inner}" for name in names for inner in ("cat", "dog")))))
    assert pool.class_names == names
    assert pool.notes == ("every class holds the same subfolders, 'cat' and 'dog': are these the classes?",)
    other = read(write_folder(tmp_path, classes(f"{names[0]}/cow")))
    assert other.notes == ()


def test_one_folder_with_all_classes_in_it_is_told_from_a_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("pictures/cat", "pictures/dog"))
    said = refusal(root)
    assert "only one class ('pictures')" in said and f"are the classes in folder:{root / 'pictures'}?" in said
    deeper = refusal(write_folder(tmp_path / "deep", classes("a/b/cat", "a/b/dog")))
    assert f"are the classes in folder:{tmp_path / 'deep' / 'a' / 'b'}?" in deeper


@pytest.mark.parametrize(
    "names",
    [
        *(("train", "bus", "car"), ("test1", "test2"), ("training", "resting"), ("trains", "tests"), ("val", "ria")),
        *(("with_mask", "without_mask"), ("trainer", "tester"), ("train", "test tube"), ("mask", "no mask")),
    ],
)
def test_classes_that_are_called_like_one_part_are_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    assert read(write_folder(tmp_path, classes(*names))).class_names == tuple(sorted(names))


# What nobody put there


HIDDEN = [
    *(".ipynb_checkpoints", ".thumbnails", ".git", "__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "__pycache__"),
    *(".Trash-1000", "System Volume Information", "@Recycle", "Network Trash Folder", "FOUND.000", "node_modules"),
]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_and_system_folders_are_nowhere_read(name: str, tmp_path: Path) -> None:
    clean = read(write_folder(tmp_path / "clean", classes("a", "b")))
    root = write_folder(tmp_path / "set", classes("a", "b"))
    for place in ("", "a/", "b/inner/"):
        write_folder(root, classes(f"{place}{name}", f"{place}{name}/deeper"))
    pool = read(root)
    assert pool.fingerprint == clean.fingerprint and pool.class_names == ("a", "b")
    names = ", ".join(sorted([name, f"a/{name}", f"b/inner/{name}"]))
    assert pool.notes == (f"3 hidden or system files or folders left out: {names}",)


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "._0.png",
        ".hidden.png",
        "0.png~",
        "#0.png#",
        "~$0.png",
        "Icon\r",
    ],
)
def test_hidden_and_system_files_are_nowhere_read(name: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes("a", "b") | {f"a/{name}": IMAGES[9], name: IMAGES[9]})
    pool = read(root)
    assert len(pool.labels) == 6
    assert len(pool.notes) == 1 and pool.notes[0].startswith("2 hidden or system files or folders left out: ")


def test_folders_without_pictures_are_skipped_with_a_note(tmp_path: Path) -> None:
    root = write_folder(
        tmp_path, classes("a", "b") | {"labels/1.xml": b"<a/>", "labels/2.xml": b"<a/>", "docs/x/y": b""}
    )
    (root / "annotations").mkdir()
    pool = read(root)
    assert pool.class_names == ("a", "b") and pool.labels.tolist() == [0] * 3 + [1] * 3
    assert pool.notes == (
        "3 files of kinds that are not read left out: 2 .xml, 1 without suffix",
        "3 folders without pictures left out: annotations, docs, labels",
    )


def test_files_beside_the_class_folders_are_counted_by_suffix(tmp_path: Path) -> None:
    beside = {"train.csv": b"x", "LICENSE": b"x", "one.png": IMAGES[0], "two.PNG": IMAGES[1]}
    assert read(write_folder(tmp_path, classes("a", "b") | beside)).notes == (
        "4 files beside the class folders left out: 2 .png, 1 without suffix, 1 .csv",
    )


# What is broken


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
BROKEN = {
    "empty": (b"", "1 empty file left out: a/x.png"),
    "cut": (IMAGES[0][:-30], "1 picture that cannot be decoded left out: a/x.png"),
    "a page": (b"<html>log in</html>", "1 picture that cannot be decoded left out: a/x.png"),
    "a pointer": (LFS, "1 Git LFS pointer whose picture was not fetched left out: a/x.png"),
}


@pytest.mark.parametrize(("content", "note"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_counted_and_named_by_kind(content: bytes, note: str, tmp_path: Path) -> None:
    pool = read(write_folder(tmp_path, classes("a", "b") | {"a/x.png": content}))
    assert len(pool.labels) == 6 and pool.notes == (note,)


def test_every_kind_has_its_line_and_long_lists_end(tmp_path: Path) -> None:
    files = classes("a", "b") | {f"a/x{n:02}.png": b"" for n in range(12)} | {"b/y.jpg": LFS, "b/z.tif": b"MM\0*"}
    notes = read(write_folder(tmp_path, files)).notes
    assert [note.split(" left out: ")[0] for note in notes] == [
        "12 empty files",
        "1 picture that cannot be decoded",
        "1 Git LFS pointer whose picture was not fetched",
    ]
    assert notes[0].endswith("a/x08.png, a/x09.png and 2 more")


def test_a_class_whose_pictures_cannot_be_read_is_refused_and_not_skipped(tmp_path: Path) -> None:
    for number, (name, content, said) in enumerate(
        [
            ("1.heic", b"\0\0\0\x18ftypheic", "1 file of a kind that is not read: 1 .heic"),
            ("1.jpg", LFS, "1 Git LFS pointer whose picture was not fetched"),
            ("1.bmp", b"", "1 empty file"),
        ]
    ):
        root = write_folder(tmp_path / str(number), classes("a", "b") | {f"c/{name}": content})
        assert f"class 'c' has no readable picture ({said})" in refusal(root)


def test_a_root_without_any_picture_says_what_is_there_instead(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"{name}/{n}.dcm": b"DICM" for name in "ab" for n in range(2)})
    assert "no picture in any subfolder (4 files of kinds that are not read: 4 .dcm; 2 folders" in refusal(root)


def test_pictures_of_too_many_pixels_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    large = png(np.zeros((20, 20), np.uint8))
    pool = read(write_folder(tmp_path, classes("a", "b") | {"a/x.png": large}))
    assert pool.notes == ("1 picture with too many pixels left out: a/x.png",)


# Links


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    plain = read(write_folder(tmp_path / "plain", classes("a", "b") | {"b/more/7.png": IMAGES[7]}))
    store = write_folder(tmp_path / "store", classes("x", "y") | {"z/7.png": IMAGES[7]})
    root = tmp_path / "set"
    root.mkdir()
    (root / "a").symlink_to(store / "x")
    (root / "b").mkdir()
    for n in range(3):
        (root / "b" / f"{n}.png").symlink_to(store / "y" / f"{n}.png")
    (root / "b" / "more").symlink_to(store / "z")
    assert read(root).fingerprint == plain.fingerprint and read(root).notes == ()


@pytest.mark.parametrize("target", [".", "..", "../..", "../b", "/", "../b/inner"])
def test_no_folder_is_read_twice_and_loops_end(target: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("a", "b", "b/inner"))
    whole = read(root)
    (root / "a" / "again").symlink_to(target)
    pool = read(root)
    assert pool.fingerprint == whole.fingerprint
    assert pool.notes == ("1 link to a folder that is already read left out: a/again",)


def test_a_class_that_is_a_link_to_another_class_or_to_all_is_no_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("cat", "dog"))
    (root / "all").symlink_to(".")
    (root / "best").symlink_to("cat")
    pool = read(root)
    assert pool.class_names == ("cat", "dog")
    assert pool.notes == ("2 links to folders that are already read left out: all, best",)


def test_links_to_nothing_and_to_themselves_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes("a", "b"))
    (root / "a" / "gone.png").symlink_to("nowhere.png")
    (root / "a" / "self.png").symlink_to("self.png")
    (root / "gone").symlink_to("nowhere")
    assert read(root).notes == ("3 links to nothing left out: a/gone.png, a/self.png, gone",)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes("a", "b"))
    os.mkfifo(root / "a" / "pipe.png")
    assert read(root).notes == ("1 pipe, socket or device left out: a/pipe.png",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes("a", "b", "a/inner"))
    (root / "a" / "0.png").chmod(0)
    (root / "a" / "inner").chmod(0)
    try:
        assert read(root).notes == ("2 files or folders without read permission left out: a/0.png, a/inner",)
    finally:
        (root / "a" / "inner").chmod(0o700)


# Names


def test_names_that_are_no_utf_8_or_hold_control_characters_are_one_printable_line(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", classes("a", "b"))
    os.rename(os.fsencode(root / "b"), os.fsencode(root) + b"/caf\xe9\n\x1b[31m")
    Path(os.fsdecode(os.fsencode(root) + b"/a/br\xf6ken\n.png")).write_bytes(b"")
    pool = read(root)
    assert pool.class_names == ("a", "caf\\xe9\\x0a\\x1b[31m")
    assert pool.notes == ("1 empty file left out: a/br\\xf6ken\\x0a.png",)
    shutil.rmtree(os.fsencode(root / "a"))
    assert "caf\\xe9\\x0a" in refusal(root)


def test_suffixes_in_either_case_are_pictures_as_ever(tmp_path: Path) -> None:
    files = {f"{name}/{n}{suffix}": IMAGES[n] for name in "ab" for n, suffix in enumerate((".PNG", ".Png", ".png"))}
    plain = write_folder(tmp_path / "plain", classes("a", "b"))
    assert read(write_folder(tmp_path / "set", files)).fingerprint == read(plain).fingerprint


@pytest.mark.parametrize("names", [("Cat", "cat"), ("A", "a"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")])
def test_classes_that_differ_in_case_only_are_said(names: tuple[str, str], tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes(*names, "dog"))
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system takes the two for one")
    pool = read(root)
    one, other = sorted(names)
    assert len(pool.class_names) == 3
    assert pool.notes == (f"classes that differ only in case: '{one}' and '{other}'",)


def test_a_tree_knows_every_path_that_its_pictures_depend_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes("a", "b/inner") | {"a/.hidden/x.png": b"", "beside.txt": b""})
    paths = {str(path.relative_to(root)) for path in scan(root).all_of_it()}
    assert paths == {".", "a", "b", *(f"{name}/{n}.png" for name in ("a", "b/inner") for n in range(3))}
