"""Random numbers are pure functions of a seed and a purpose, and have the laws that their names say."""

import itertools

import numpy as np
import pytest

from sweep.common import random_streams

MANY = 200_000
PINNED = [
    (0, "order/0", [14673504513305535427, 18192195793190200546, 12445800978129762551]),
    (1, "order/0", [13578811490216641325, 6108446023110629053, 6964399944056402768]),
    (0, "init/conv0/he", [6495102534583025776, 15657100532254839388, 12632397065994767189]),
    (2**32 - 1, "init/logits/bias", [11204947864260602798, 2502094845021047143, 18219502253053372517]),
]
SEEDS_AND_PURPOSES = [(0, "order/0"), (0, "order/1"), (1, "order/0"), (0, "init/conv0/he"), (2**32 - 1, "order/0")]


@pytest.mark.parametrize(("seed", "purpose", "words"), PINNED)
def test_the_first_words_of_a_stream_are_these_for_ever(seed: int, purpose: str, words: list[int]) -> None:
    assert random_streams.bits(seed, purpose, 3).tolist() == words


@pytest.mark.parametrize(
    "words",
    [
        [],
        [5],
        [3, 3, 1, 3, 2**64 - 1, 0, 3],
        [2**63 + 2, 2**63 + 1, 2**63, 2**63 + 1],  # they differ in their lowest bits alone
        [(7 * place) % 64 << 58 for place in range(63)],
        [(7 * place) % 64 << 58 for place in range(64)],
    ],
    ids=["none", "one", "equal", "near", "a power of two less one", "a power of two"],
)
def test_a_permutation_is_the_stable_order_of_its_words(words: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {0: words, 1: [word ^ 2**62 for word in reversed(range(len(words)))]}
    monkeypatch.setattr(random_streams, "bits", lambda seed, purpose, count: np.array(drawn[seed], dtype=np.uint64))
    wanted = [sorted(range(len(words)), key=lambda place: drawn[seed][place]) for seed in (0, 1)]
    found = random_streams.permutations([0, 1], "", len(words))
    assert found.dtype == np.int64 and found.tolist() == wanted
    assert random_streams.permutation(0, "", len(words)).tolist() == wanted[0]


@pytest.mark.parametrize("count", [2, 90, 3500, 60_000])
def test_permutations_of_a_data_set_s_size_are_those_that_they_ever_were(count: int) -> None:
    for seed in range(5):
        wanted = np.argsort(random_streams.bits(seed, "order/0", count), kind="stable")
        np.testing.assert_array_equal(random_streams.permutation(seed, "order/0", count), wanted)


def test_a_shorter_draw_is_the_beginning_of_a_longer_one() -> None:
    for draw in (random_streams.bits, random_streams.uniform, random_streams.normal, random_streams.truncated_normal):
        assert draw(5, "purpose", 10).tolist() == draw(5, "purpose", 1000)[:10].tolist()


def test_uniform_numbers_lie_strictly_between_0_and_1(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = random_streams.uniform(0, "uniform", MANY)
    assert 0 < numbers.min() < 1e-4 and 1 - 1e-4 < numbers.max() < 1
    assert numbers.mean() == pytest.approx(1 / 2, abs=4 / np.sqrt(12 * MANY))
    assert numbers.var() == pytest.approx(1 / 12, rel=0.01)
    extremes = np.array([0, 2**64 - 1], dtype=np.uint64)
    monkeypatch.setattr(random_streams, "bits", lambda seed, purpose, count: extremes)
    low, high = random_streams.uniform(0, "", 2)
    assert 0 < low and high < 1
    assert np.isfinite(random_streams.normal(0, "", 2)).all()


def test_normal_numbers_have_the_moments_and_tails_of_the_normal_law() -> None:
    numbers = random_streams.normal(0, "normal", MANY)
    moments = [np.mean(numbers**power) for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.05)
    assert [np.mean(np.abs(numbers) > cut) for cut in (1, 2)] == pytest.approx([0.3173, 0.0455], abs=0.005)


def test_truncated_normal_numbers_stay_within_the_cut_with_the_variance_of_that_law() -> None:
    numbers = random_streams.truncated_normal(0, "truncated", MANY)
    assert 1.99 < np.abs(numbers).max() <= 2
    # 1 - 2 c phi(c) / (2 Phi(c) - 1) at c = 2
    assert numbers.var() == pytest.approx(0.77374, rel=0.01)
    assert numbers.mean() == pytest.approx(0, abs=0.01)
    # The law of what remains when draws outside are drawn again.
    drawn = random_streams.normal(0, "other", MANY)
    drawn = drawn[np.abs(drawn) <= 2]
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert np.quantile(numbers, levels) == pytest.approx(np.quantile(drawn, levels), abs=0.02)
    assert np.abs(random_streams.truncated_normal(0, "truncated", 1000, cut=0.5)).max() <= 0.5


def test_two_seeds_or_two_purposes_have_nothing_in_common() -> None:
    draws = [random_streams.uniform(seed, purpose, 20_000) for seed, purpose in SEEDS_AND_PURPOSES]
    for one, other in itertools.combinations(draws, 2):
        assert not np.isin(one, other).any()
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
        assert abs(np.corrcoef(one[1:], other[:-1])[0, 1]) < 0.03


def test_a_seed_and_a_purpose_cannot_be_taken_for_another_seed_and_purpose() -> None:
    assert random_streams.bits(1, "1/order", 4).tolist() != random_streams.bits(11, "/order", 4).tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 3500])
def test_a_permutation_holds_every_index_once(count: int) -> None:
    drawn = random_streams.permutation(0, "order/0", count)
    assert sorted(drawn.tolist()) == list(range(count))


def test_permutations_of_other_streams_are_others_and_each_place_takes_each_index() -> None:
    drawn = np.stack([random_streams.permutation(seed, "order/0", 6) for seed in range(6000)])
    counts = np.stack([np.bincount(place, minlength=6) for place in drawn.T])
    assert (np.abs(counts - 1000) < 150).all()
    assert len({tuple(row) for row in drawn.tolist()}) == 720


def test_the_order_of_the_first_epoch_is_this_for_ever() -> None:
    assert random_streams.permutation(0, "order/0", 10).tolist() == [8, 4, 6, 2, 7, 0, 5, 9, 1, 3]
