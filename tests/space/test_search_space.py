"""A search space is a grid known exactly, or one message that says what to change and on which line."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep import plan
from sweep.common.errors import InputError
from sweep.space import search_space, yaml_lines
from sweep.space.runs import DEFAULTS, IDENTITY, SETTINGS, Run
from sweep.space.search_space import SearchSpace, load, parse

SPACES = Path(__file__).parents[2] / "search_spaces"
PINNED = "{fingerprint: 0123456789abcdef, picture: [1, 28, 28], classes: 10, train: 100}"


def space(text: str) -> SearchSpace:
    return parse(text.encode(), Path("x.yaml"))


def complaint(content: str | bytes) -> str:
    content = content.encode() if isinstance(content, str) else content
    with pytest.raises(InputError) as caught:
        parse(content, Path("x.yaml"))
    return str(caught.value)


def members(of: SearchSpace) -> list[tuple[tuple[bool, int], ...]]:
    return [each for _, each in of.grid()]


# What is read


def test_an_empty_mapping_is_one_pair_of_default_networks_named_after_the_file() -> None:
    read = space("{}")
    [(cell, [with_bias, without])] = read.grid()
    assert read.name == "x"
    assert cell == {name: default for name, default in DEFAULTS.items() if name not in ("bias", "seed")}
    assert (with_bias, without) == ((True, 0), (False, 0))
    assert (read.analysis.margin, read.analysis.confidence, read.analysis.declared) == (0.5, 0.95, {})


def test_a_cell_with_a_member_is_a_run() -> None:
    read = space("settings: {steps: 3}\naxes: {width: [4], bias: [false], seed: [7]}")
    [(cell, [(bias, seed)])] = read.grid()
    assert Run(**cell, bias=bias, seed=seed) == Run(width=4, steps=3, bias=False, seed=7)


def test_the_grid_is_the_product_of_the_axes_in_a_fixed_order() -> None:
    one = space("axes: {width: [4, 2], depth: [1, 3], seed: [9, 5], bias: [false, true]}")
    other = space("axes: {seed: [9, 5], bias: [false, true], depth: [1, 3], width: [4, 2]}")
    assert list(one.grid()) == list(other.grid())
    assert [(cell["depth"], cell["width"]) for cell, _ in one.grid()] == [(1, 4), (1, 2), (3, 4), (3, 2)]
    assert members(one) == [((False, 9), (True, 9), (False, 5), (True, 5))] * 4
    assert (one.cell_count(), one.run_count()) == (4, 16)


def test_a_count_of_seeds_is_the_seeds_below_it() -> None:
    assert space("axes: {seed: 3}").levels["seed"] == (0, 1, 2)


def test_bias_and_seed_may_be_fixed_under_settings() -> None:
    assert members(space("settings: {bias: false, seed: 5}")) == [((False, 5),)]


def test_a_number_means_the_same_however_it_is_written() -> None:
    levels = space("axes: {learning_rate: [1e-3, 1, 2.5E+1, .5, +0.25]}").levels["learning_rate"]
    assert levels == (0.001, 1.0, 25.0, 0.5, 0.25)
    assert all(type(level) is float for level in levels)
    assert space("axes: {width: [0x10, 0o17, 010]}").levels["width"] == (16, 15, 10)
    assert math.copysign(1, space("settings: {dropout: -0.0}").fixed["dropout"]) == 1


def test_a_byte_order_mark_and_crlf_are_no_obstacle() -> None:
    assert parse(b"\xef\xbb\xbfaxes:\r\n  width: [3]\r\n", Path("x.yaml")).levels["width"] == (3,)


def test_an_alias_may_be_used_twice() -> None:
    assert space("axes: {width: &w [1, 2], depth: *w}").cell_count() == 4


def test_merge_keys_fill_in_what_is_not_written_the_earlier_source_first() -> None:
    merged = space(
        """
x-small: &small {width: 1, steps: 10}
x-shallow: &shallow {width: 2, depth: 1}
settings:
  <<: [*small, *shallow]
  steps: 11
"""
    )
    assert merged.settings == {"width": 1, "depth": 1, "steps": 11}
    assert "x-" not in merged.resolved() and "<<" not in merged.resolved()


def test_a_section_whose_entries_are_all_commented_out_is_left_out() -> None:
    sections = ("settings", "axes", "exclude", "claim", "analysis", "tracking", "data")
    commented = "".join(f"{section}:\n  # nothing\n" for section in sections)
    assert space(commented) == space("{}")
    jsonschema.validate(yaml_lines.parse(commented.encode(), Path("x.yaml")).data, search_space.schema())


# What `exclude` leaves out

EXCLUSIONS = [
    [{"width": 2}],
    [{"width": [1, 2], "depth": 3}],
    [{"seed": 1}],
    [{"bias": False, "width": 3}, {"seed": [0, 2], "depth": 1}],
    [{"width": 1, "bias": True}, {"width": 1, "bias": False}],
]


@pytest.mark.parametrize("exclude", EXCLUSIONS)
def test_exclude_leaves_out_the_runs_that_match_a_clause_and_no_others(exclude: list[dict[str, Any]]) -> None:
    axes = {"width": [1, 2, 3], "depth": [1, 3], "seed": [0, 1, 2], "bias": [True, False]}
    read = space(json.dumps({"axes": axes, "exclude": exclude}))

    def matches(run: dict[str, Any], clause: dict[str, Any]) -> bool:
        return all(run[name] in (level if isinstance(level, list) else [level]) for name, level in clause.items())

    runs = [dict(zip(axes, levels, strict=True)) for levels in itertools.product(*axes.values())]
    expected = {tuple(run.values()) for run in runs if not any(matches(run, clause) for clause in exclude)}
    found = [(c["width"], c["depth"], seed, bias) for c, arms in read.grid() for bias, seed in arms]
    assert len(found) == len(set(found)) == read.run_count()
    assert set(found) == expected
    assert read.cell_count() == len({(width, depth) for width, depth, _, _ in expected})


@pytest.mark.parametrize(
    "axes",
    [
        {"width": list(range(1, 51)), "seed": 10_000},
        {"width": list(range(1, 501)), "steps": list(range(1, 1001))},
    ],
)
def test_a_million_runs_are_walked_whether_in_few_cells_or_in_many(axes: dict[str, Any]) -> None:
    read = space(json.dumps({"axes": axes, "exclude": [{"width": 3}, {"width": 2, "seed": 0, "bias": True}]}))
    assert sum(len(arms) for _, arms in read.grid()) == read.run_count() > 975_000


# What is written


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "name: 1e3x\naxes: {seed: 4}",
        "name: '1e3'\nanalysis: {margin: 0.5}",
        "name: 'on'\nanalysis: {confidence: 0.9, looks: 3}",
        "{axes: {learning_rate: [0.1, 0.2]}, analysis: {tune: [learning_rate]}}",
        'claim: {says: "“it: helps”", refuted_if: "it # does not"}',
        "settings: {bias: false, seed: 3, evaluate_every: 7}",
        "axes: {seed: [0, 2], learning_rate: [1e-5, 1], width: &w [1, 2], depth: *w}\n"
        "exclude: [{width: 1, seed: 2}, {learning_rate: [1]}]",
    ],
)
def test_the_resolved_text_loads_as_the_same_grid_and_the_same_analysis(text: str) -> None:
    first = space(text)
    again = parse(first.resolved().encode(), Path("elsewhere.yaml"))
    assert list(again.grid()) == list(first.grid())
    assert (again.name, again.fixed, again.levels) == (first.name, first.fixed, first.levels)
    assert again.claim == first.claim
    assert again.analysis.declared == first.analysis.declared
    assert (again.analysis.margin, again.analysis.confidence) == (
        first.analysis.margin,
        first.analysis.confidence,
    )
    assert again.resolved() == first.resolved()


def test_the_resolved_text_names_every_setting() -> None:
    written = yaml_lines.parse(space("axes: {width: [1, 2]}").resolved().encode(), Path("x.yaml")).data
    assert {*written["settings"], *written["axes"]} == set(SETTINGS)


CLAIM = """\
claim:
  says: “It
    helps”
  note: >
    on digits,
    in minutes
  refuted_if: it does not
"""


def test_a_claim_is_text_on_one_line_however_the_file_breaks_it() -> None:
    claim = space(CLAIM).claim
    assert claim and (claim.says, claim.note, claim.refuted_if) == (
        "“It helps”",
        "on digits, in minutes",
        "it does not",
    )
    assert space("{}").claim is None


def test_a_stored_claim_is_readable() -> None:
    assert "  says: “It helps”\n" in space(CLAIM).resolved()


@pytest.mark.parametrize("claim", ["", "claim: {says: another, refuted_if: something else}\n"])
def test_a_claim_changes_nothing_but_itself(claim: str) -> None:
    grid = "settings: {steps: 3}\naxes: {width: [1, 2], seed: 4}\nexclude: [{width: 1, seed: 0}]\n"
    one, other = space(CLAIM + grid), space(claim + grid)
    assert plan.run_ids(one) == plan.run_ids(other)
    assert [array.array_id for array in plan.arrays(one, "cpu")] == [a.array_id for a in plan.arrays(other, "cpu")]
    assert one.model_copy(update={"claim": None}).resolved() == other.model_copy(update={"claim": None}).resolved()


# What is refused: the text, the line that is named, and words of the message

REFUSED = {
    "misspelt axis": ("axes:\n  widht: [1]", 2, "axes.widht: unknown setting; did you mean 'width'?"),
    "misspelt setting": (
        "settings:\n  depht: 1",
        2,
        "settings.depht: unknown setting; did you mean 'depth'?",
    ),
    "setting without a near name": (
        "settings:\n  zzz: 1",
        2,
        "settings.zzz: unknown setting; known are bias, ",
    ),
    "misspelt key": ("name: a\naxis: {}", 2, "axis: unknown key; did you mean 'axes'?"),
    "setting at the top": ("\nwidth: 3", 2, "width: a setting belongs under settings or axes"),
    "misspelt level": (
        "settings: {bias_init: zeroes}",
        1,
        "one of 'zeros', 'uniform', 'original'; did you mean 'zeros'?",
    ),
    "text for an integer": (
        'axes: {width: ["4"]}',
        1,
        "axes.width[0]: '4' is not allowed; expected an integer from 1 to 1024",
    ),
    "fraction for an integer": (
        "settings: {depth: 2.5}",
        1,
        "settings.depth: 2.5 is not allowed; expected an integer from 1",
    ),
    "whole float for an integer": ("settings: {depth: 2.0}", 1, "settings.depth: 2.0 is not allowed"),
    "bool for an integer": ("axes:\n  width: [1, true]", 2, "axes.width[1]: true is not allowed; expected an integer"),
    "bool for a number": (
        "settings: {learning_rate: true}",
        1,
        "settings.learning_rate: true is not allowed",
    ),
    "integer for a bool": (
        "axes: {batch_norm: [0, 1]}",
        1,
        "axes.batch_norm[0]: 0 is not allowed; expected true or false",
    ),
    "old-style bool": ("settings: {batch_norm: on}", 1, "'on' is not allowed; expected true or false"),
    "null": ("settings: {width: null}", 1, "settings.width: null is not allowed"),
    "list for a level": ("axes: {width: [[1]]}", 1, "axes.width[0]: [1] is not allowed"),
    "level on its own line": (
        "axes:\n  width:\n    - 1\n    - 4\n    - 0",
        5,
        "axes.width[2]: 0 is not allowed",
    ),
    "size too large": (
        "settings: {width: 1025}",
        1,
        "settings.width: 1025 is not allowed; expected an integer from 1 to 1024",
    ),
    "huge integer": (f"settings: {{width: {'9' * 390}}}", 1, "settings.width: 9999"),
    "endless integer": (f"settings: {{width: {'9' * 5000}}}", 1, "a number of 5,000 characters; at most 400"),
    "even kernel": ("settings: {kernel_size: 4}", 1, "4 is not allowed; expected one of 1, 3, 5, 7, 9, 11, 13, 15"),
    "nan": ("settings: {learning_rate: .nan}", 1, "nan is not allowed; expected a number above 0 and at most 1000"),
    "infinity": ("settings: {learning_rate: 1e999}", 1, "inf is not allowed"),
    "nan where only an upper limit holds": (
        "settings: {dropout: .nan}",
        1,
        "settings.dropout: nan is not allowed",
    ),
    "no levels": ("axes: {width: []}", 1, "axes.width: no levels"),
    "a level alone": ("axes: {width: 4}", 1, "axes.width: 4 is not allowed; expected a list of levels"),
    "level twice": ("axes: {width: [1, 2, 1]}", 1, "axes.width[2]: 1 is given twice"),
    "equal numbers": ("axes: {learning_rate: [1, 1.0]}", 1, "axes.learning_rate[1]: 1.0 is given twice"),
    "too many levels": (f"axes: {{steps: {[*range(1, 10_002)]}}}", 1, "10,001 levels; at most 10,000"),
    "too many seeds": (
        "axes: {seed: 10001}",
        1,
        "axes.seed: 10001 is not allowed; expected a count of seeds from 1 to 10,000",
    ),
    "far too many seeds": (
        "axes: {seed: 1000000000000}",
        1,
        "1000000000000 is not allowed; expected a count of seeds",
    ),
    "no seeds": ("axes: {seed: 0}", 1, "axes.seed: 0 is not allowed; expected a count of seeds"),
    "bool for a count": (
        "axes: {seed: true}",
        1,
        "axes.seed: true is not allowed; expected a count of seeds, or a list",
    ),
    "negative seed": ("axes: {seed: [-1]}", 1, "axes.seed[0]: -1 is not allowed"),
    "too many runs": (
        f"axes:\n  width: {[*range(1, 502)]}\n  seed: 10000",
        1,
        "10,020,000 runs; at most 10,000,000",
    ),
    "axis under settings": (
        "settings: {width: 4}\naxes:\n  width: [1]",
        3,
        "axes.width: also given under settings",
    ),
    "evaluate_every as an axis": (
        "axes: {evaluate_every: [1]}",
        1,
        "not part of a run's identity, so it cannot vary",
    ),
    "axes as a list": ("axes: [width]", 1, "axes: ['width'] is not allowed; expected a mapping"),
    "no name": ("name:\naxes: {}", 1, "name: null is not allowed; expected text"),
    "a truth value as text": (
        "settings:\n  batch_norm: 'true'",
        2,
        "this is text: write true, without quotation marks",
    ),
    "a truth value of older YAML": ("axes:\n  bias: [yes, no]", 2, "this is text: write true, without quotation marks"),
    "an integer as text": (
        "axes:\n  width: [1, '2']",
        2,
        "width[1]: '2' is not allowed; expected an integer from 1 to",
    ),
    "a count of seeds as text": ("axes:\n  seed: '8'", 2, "this is text: write 8, without quotation marks"),
    "a number as text": ("settings: {learning_rate: '1e-2'}", 1, "this is text: write 1e-2, without quotation marks"),
    "a margin as text": ("analysis:\n  margin: '0.5'", 2, "this is text: write 0.5, without quotation marks"),
    "a split below the first": (
        "settings: {split: -1}",
        1,
        "settings.split: -1 is not allowed; expected an integer of at least 0",
    ),
    "unknown data": (
        "settings: {dataset: notminst}",
        1,
        "settings.dataset: 'notminst' is not allowed; expected one of mnist5k, digits, letters, notmnist, mnist, "
        "fashion_mnist, kmnist, emnist_letters, svhn, cifar10, cifar100, folder:PATH, npz:PATH; "
        "did you mean 'notmnist'?",
    ),
    "data in a bucket": (
        "settings: {dataset: 'folder:s3://b/x'}",
        1,
        "settings.dataset: folder s3://b/x: unknown kind 's3'; expected a path on this machine",
    ),
    "data under an unfilled name": (
        "settings: {dataset: 'npz:$DATA/x.npz'}",
        1,
        "contains a variable, $…, that no shell",
    ),
    "data without its path": ("axes: {dataset: [digits, 'folder:']}", 1, "axes.dataset[1]: 'folder:' is not allowed"),
    "resized pictures that are no folder's": (
        "settings: {image_size: 8}",
        1,
        "settings.image_size: only the pictures of folder:PATH can be resized, not those of mnist5k",
    ),
    "image size as an axis": ("axes: {image_size: [8]}", 1, "cannot be an axis; give it under settings"),
    "fewer pictures than a batch": (
        "settings: {dataset: digits}\naxes: {batch_size: [16, 1259]}",
        2,
        "axes.batch_size: a batch of 1,259 pictures is larger than the training set (1,258 of digits)",
    ),
    "fewer chosen pictures than a batch": (
        "settings: {train_examples: 15}",
        1,
        "settings.train_examples: a batch of 16 pictures is larger than the training set (15 of mnist5k)",
    ),
    "pooling that shrinks pictures to nothing": (
        f"settings: {{dataset: notmnist, pooling: max}}\ndata: {{notmnist: {PINNED.replace('28, 28', '3, 9')}}}",
        1,
        "settings.pooling: pooling max at depth 2 needs pictures of at least 4 x 4; those of notmnist are 3 x 9",
    ),
    "a pin of pictures that are fixed": (
        f"data: {{mnist5k: {PINNED}}}",
        1,
        "data.mnist5k: its pictures are fixed by the program",
    ),
    "a pinned picture of two sides": (
        f"settings: {{dataset: notmnist}}\ndata: {{notmnist: {PINNED.replace('1, 28, 28', '28, 28')}}}",
        2,
        "data.notmnist.picture: [28, 28] is not allowed; expected a mapping with fingerprint",
    ),
    "pinned data that is not there": (
        f"data: {{notmnist: {PINNED}}}",
        1,
        "data.notmnist: not a data set of this search space, which has mnist5k",
    ),
    "a misspelt pin": (
        f"settings: {{dataset: notmnist}}\ndata: {{notmnist: {PINNED.replace('train', 'trian')}}}",
        2,
        "data.notmnist.trian: unknown key; did you mean 'train'?",
    ),
    "a fingerprint that is none": (
        f"settings: {{dataset: notmnist}}\ndata: {{notmnist: {PINNED.replace('0123', 'xyz')}}}",
        2,
        "data.notmnist.fingerprint: 'xyz456789abcdef' is not allowed; expected a mapping with",
    ),
    "more pictures than there are": (
        "settings: {train_examples: 3501}",
        1,
        "settings.train_examples: 3,501 is not allowed: mnist5k has 3,500 training pictures",
    ),
    "momentum of adamw": (
        "settings: {optimizer: adamw}\naxes: {momentum: [0, 0.9]}",
        2,
        "axes.momentum: momentum 0.9, optimizer 'adamw': momentum belongs to sgd",
    ),
    "later convolutions where there are none": (
        "axes:\n  depth: [1, 2]\n  bias_layers: [conv, later_conv]",
        3,
        "axes.bias_layers: bias_layers 'later_conv', depth 1: there is no later convolution",
    ),
    "shared weights with one arm": (
        "settings: {protocol: shared_weights, bias: true}",
        1,
        "settings.protocol: shared_weights trains both arms",
    ),
    "shared weights with half a pair": (
        "settings: {protocol: shared_weights}\naxes: {seed: 4}\nexclude:\n- {bias: true, seed: 2}",
        4,
        "exclude[0].bias: would leave half of a pair",
    ),
    "clause that matches nothing": (
        "axes: {width: [1]}\nexclude:\n- width: 3",
        3,
        "exclude[0].width: 3 is not a level",
    ),
    "clause that matches in part": (
        "axes: {width: [1, 2]}\nexclude: [{width: [1, 3]}]",
        2,
        "exclude[0].width[1]: 3 is not",
    ),
    "clause on a fixed setting": ("exclude: [{depth: 2}]", 1, "exclude[0].depth: not an axis, but fixed at 2"),
    "clause of a wrong type": (
        "exclude: [{width: x}]",
        1,
        "exclude[0].width: 'x' is not allowed; expected an integer",
    ),
    "clause with a misspelt axis": (
        "exclude: [{widht: 1}]",
        1,
        "exclude[0].widht: unknown setting; did you mean 'width'?",
    ),
    "clause without axes": ("exclude: [{}]", 1, "exclude[0]: names no axis"),
    "clause that is no mapping": ("exclude: [width]", 1, "exclude[0]: 'width' is not allowed; expected a mapping"),
    "exclude as a mapping": ("exclude: {width: 1}", 1, "is not allowed; expected a list of mappings"),
    "everything excluded": (
        "axes: {width: [1, 2]}\nexclude: [{width: [1, 2]}]",
        2,
        "exclude: leaves no runs",
    ),
    "everything excluded by members": (
        "exclude: [{bias: true}, {bias: false}]",
        1,
        "exclude: leaves no runs",
    ),
    "negative margin": (
        "analysis: {margin: -1}",
        1,
        "analysis.margin: -1 is not allowed; expected a number from 0 to 100",
    ),
    "confidence of a half": (
        "analysis: {confidence: 0.5}",
        1,
        "analysis.confidence: 0.5 is not allowed; expected a number above",
    ),
    "no look": ("analysis: {looks: 0}", 1, "analysis.looks: 0 is not allowed; expected an integer from 1 to 100"),
    "tuning what is no list": (
        "analysis: {tune: width}",
        1,
        "analysis.tune: 'width' is not allowed; expected a list with learning_rate",
    ),
    "tuning another setting": (
        "analysis: {tune: [width]}",
        1,
        "analysis.tune[0]: 'width' is not allowed; expected a list with learning_rate",
    ),
    "tuning twice": ("analysis: {tune: [learning_rate, learning_rate]}", 1, "a list with learning_rate"),
    "tuning what is no axis": (
        "axes: {learning_rate: [0.1]}\nanalysis: {tune: [learning_rate]}",
        2,
        "analysis.tune: learning_rate is not an axis with several levels",
    ),
    "tracking": (
        "tracking: mlflow",
        1,
        "tracking: 'mlflow' is not allowed; expected a mapping with mlflow, wandb, tensorboard",
    ),
    "tracker elsewhere": ("tracking:\n  tensorboard: s3://b/x", 2, "tracking.tensorboard: s3://b/x: unknown kind 's3'"),
    "tracker that is blank": ("tracking: {tensorboard: ' '}", 1, "is empty; expected a folder"),
    "unknown tracker": ("tracking: {mlfow: x}", 1, "tracking.mlfow: unknown tracker; did you mean 'mlflow'?"),
    "claim alone": (
        "claim: it helps",
        1,
        "claim: 'it helps' is not allowed; expected a mapping with says, note, refuted_if",
    ),
    "claim that nothing refutes": (
        "claim:\n  says: it helps",
        1,
        "claim: refuted_if is missing; expected text that says which results would refute it",
    ),
    "claim that says nothing": (
        "claim:\n  refuted_if: x\n  says: ' '",
        3,
        "claim.says: ' ' is not allowed; expected text that says what is claimed",
    ),
    "claim that is no text": (
        "claim: {says: 3, refuted_if: x}",
        1,
        "claim.says: 3 is not allowed; expected text that says what",
    ),
    "misspelt claim": (
        "claim: {says: x, refuted_if: y, nota: z}",
        1,
        "claim.nota: unknown key; did you mean 'note'?",
    ),
    "unknown analysis": ("analysis: {marign: 1}", 1, "analysis.marign: unknown key; did you mean 'margin'?"),
    "name with a path": ("name: ../x", 1, "name: '../x' is not allowed; expected text of at most 64 letters"),
    "name with a line break": ('name: "a\\n"', 1, "is not allowed; expected text of at most 64 letters"),
    "name that is hidden": ("name: .x", 1, "name: '.x' is not allowed"),
    "name like an option": ("name: -x", 1, "name: '-x' is not allowed"),
    "long name": (f"name: {'x' * 65}", 1, "is not allowed; expected text of at most 64 letters, digits and . _ -"),
    "number for a name": ("name: 1e3", 1, "name: 1000.0 is not allowed; expected text"),
    "key twice": ("axes: {}\nname: a\naxes: {}", 3, "axes: given twice, first on line 1"),
    "key twice, deeper": ("settings:\n  steps: 3\n  steps: 3", 3, "steps: given twice, first on line 2"),
    "key twice in a clause": (
        "axes: {width: [1, 2]}\nexclude:\n- {width: 1, width: 2}",
        3,
        "width: given twice",
    ),
    "key that is no name": ("axes:\n  1: [2]", 2, "1 is not allowed as a key"),
    "list as a key": ("? [1]\n: 2", 1, "[1] is not allowed as a key"),
    "merge key": ("settings:\n  <<: 3", 2, "<<: merges mappings; expected one, or a list of them"),
    "merge of itself": ("settings: &a\n  <<: *a", 1, "this alias contains itself"),
    "merged mistake": ("x-a: &a\n  widht: 1\nsettings:\n  <<: *a", 2, "settings.widht: unknown setting"),
    "no YAML": ("axes: {}\nname: a: b", 2, "not valid YAML: mapping values are not allowed here"),
    "unclosed list": ("axes:\n  width: [1", 2, "not valid YAML"),
    "a list": ("- 1", 1, "[1] is not allowed; expected a mapping with name, settings"),
    "a scalar": ("hello", 1, "'hello' is not allowed; expected a mapping"),
    "nothing": ("", 1, "the file is empty"),
    "a comment": ("# nothing", 1, "the file is empty"),
    "several documents": ("name: a\n---\nname: b", 2, "expected a single document"),
    "recursion": ("axes: &a {width: *a}", 1, "this alias contains itself"),
    "unknown alias": ("axes: *a", 1, "found undefined alias"),
    "depth": ("[" * 1000, 1, "nested too deeply"),
    "python object": ("axes: !!python/object/apply:os.system [ls]", 1, "is not allowed: plain values only"),
    "binary": ("name: !!binary aaaa", 1, "is not allowed: plain values only"),
    "set": ("settings: !!set {width}", 1, "is not allowed: plain values only"),
    "wrong tag": ("settings: {width: !!int x}", 1, "'x' does not have the type that its tag names"),
    "control character": ("name: a\nx: \x01", 2, "not valid YAML: a character that YAML does not allow"),
    "impossible escape": (r'name: "\UFFFFFFFF"', 1, "not valid YAML"),
    "not UTF-8": (b"name: a\nx: \xff\n", 2, "not UTF-8 text"),
    "UTF-16": ("name: a".encode("utf-16"), 1, "not UTF-8 text"),
}


@pytest.mark.parametrize(("text", "line", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_with_its_line_and_what_is_allowed(text: str | bytes, line: int, words: str) -> None:
    message = complaint(text)
    assert message.startswith(f"x.yaml:{line}: ")
    assert words in message
    assert all(len(each) < 500 for each in message.splitlines())


def test_only_text_that_would_be_a_level_without_quotation_marks_is_said_to_be_text() -> None:
    for text in ("{width: wide}", "{width: '1.5'}", "{batch_norm: '1'}", "{activation: 'true'}"):
        assert "this is text" not in complaint(f"settings: {text}")


def test_several_errors_come_by_line_and_are_cut_short() -> None:
    message = complaint("axes:\n  width: [0, 0, 0, 0, 0]\nsettings:\n  depth: 0\nname: /\n")
    assert [each.split(":")[1] for each in message.splitlines()[:-1]] == ["2"] * 5
    assert message.splitlines()[-1] == "… and 2 more"


def test_a_bomb_of_aliases_is_refused_before_it_is_expanded() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 30)]
    assert "more than 200,000 values" in complaint("\n".join(lines))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, words in [
        (tmp_path, "is a directory"),
        (tmp_path / "none.yaml", "No such file"),
        (Path("a\0"), "null"),
    ]:
        with pytest.raises(InputError, match=words):
            load(path)


def test_a_file_larger_than_any_search_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"#" * (yaml_lines.MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        load(tmp_path / "x.yaml")


def test_a_stem_that_is_no_name_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "my space.yaml"
    path.write_text("axes: {}", encoding="utf-8")
    with pytest.raises(InputError, match="the file's stem 'my space' is not allowed; expected text of at most"):
        load(path)
    path.write_text("name: mine", encoding="utf-8")
    assert load(path).name == "mine"


WORDS = st.sampled_from(
    [
        *SETTINGS,
        "name",
        "settings",
        "axes",
        "exclude",
        "analysis",
        "margin",
        "claim",
        "says",
        "refuted_if",
        "seed",
        "zeros",
        "1e-3",
        "<<",
        "&a",
        "*a",
    ]
)
SCALARS = WORDS | st.integers(-2, 40) | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(WORDS, v, max_size=4), max_leaves=12)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "settings": st.dictionaries(WORDS, SCALARS, max_size=3) | VALUES,
        "axes": st.dictionaries(WORDS, st.lists(SCALARS, max_size=3) | SCALARS, max_size=3) | VALUES,
        "exclude": st.lists(st.dictionaries(WORDS, VALUES, max_size=2), max_size=2) | VALUES,
        "analysis": VALUES,
        "claim": st.fixed_dictionaries({"says": st.text(), "refuted_if": st.text()}) | VALUES,
        "name": SCALARS,
    },
)
LINES = st.lists(
    st.sampled_from(["- ", "? ", ": ", "{", "}", "[", "]", ", ", "\n", "  ", "'", '"', "!", "%", "|"]) | WORDS
)


@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text() | LINES.map("".join) | NEARLY.map(yaml_lines.dump) | NEARLY.map(json.dumps))
def test_whatever_stands_in_the_file_gives_a_search_space_or_an_input_error(content: str | bytes) -> None:
    try:
        read = parse(content if isinstance(content, bytes) else content.encode("utf-8", "replace"), Path("x.yaml"))
    except InputError as error:
        assert str(error).startswith("x.yaml:")
    else:
        assert read.run_count() > 0
        again = parse(read.resolved().encode(), Path("y.yaml"))
        assert (again.levels, again.claim) == (read.levels, read.claim)


# The schema and the shipped files


def test_the_schema_on_disk_is_the_one_of_the_model() -> None:
    assert json.loads((SPACES / "schema.json").read_text(encoding="utf-8")) == search_space.schema()


def test_the_schema_is_a_schema_that_names_every_setting_and_allows_nothing_else() -> None:
    made = search_space.schema()
    jsonschema.Draft202012Validator.check_schema(made)
    parts = made["$defs"]
    assert list(parts["Settings"]["properties"]) == list(SETTINGS)
    assert list(parts["Axes"]["properties"]) == list(parts["Clause"]["properties"]) == list(IDENTITY)
    for part in (made, *parts.values()):
        assert part["additionalProperties"] is False
    for name, setting in parts["Settings"]["properties"].items():
        assert setting["default"] == DEFAULTS[name]
        assert setting["description"], name
        assert "const" not in setting


SHIPPED = sorted(SPACES.rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_shipped_search_space_loads_and_fits_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    schema_line = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema_line).resolve() == (SPACES / "schema.json").resolve()
    jsonschema.validate(yaml_lines.parse(text.encode(), path).data, search_space.schema())
    assert load(path).analysis.declared.keys() >= {"margin"}


@pytest.mark.parametrize(
    "text",
    [
        "axes: {widht: [1]}",
        "axes: {width: []}",
        "axes: {width: [1, 1]}",
        "axes: {width: [true]}",
        "axes: {seed: 10001}",
        "axes: {evaluate_every: [1]}",
        "settings: {width: 0}",
        "settings: {kernel_size: 4}",
        "settings: {split: -1}",
        "settings: {dataset: notminst}",
        "analysis: {confidence: 0.5}",
        "analysis: {looks: 0}",
        "analysis: {tune: [width]}",
        "tracking: mlflow",
        "claim: it helps",
        "claim: {says: it helps}",
        "claim: {says: '', refuted_if: x}",
        "name: a/b",
        "width: 3",
        "[]",
    ],
)
def test_what_the_schema_refuses_the_loader_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml_lines.parse(text.encode(), Path("x.yaml")).data, search_space.schema())
    assert complaint(text)


def test_the_width_question_is_asked_as_stated() -> None:
    read = load(SPACES / "width.yaml")
    assert read.levels["width"] == (1, 2, 4, 8, 16, 32, 64)
    assert read.run_count() == 7 * 2 * 2 * 32
    stated = {"dataset": "mnist5k", "depth": 2, "steps": 1001, "batch_size": 16, "learning_rate": 0.05}
    assert stated.items() <= read.fixed.items()


@pytest.mark.parametrize(
    "text",
    [
        "{axes: {optimizer: [sgd, adamw], momentum: [0, 0.9]}, exclude: [{optimizer: adamw, momentum: 0.9}]}",
        "{axes: {depth: [1, 2], bias_layers: [conv, later_conv]}, exclude: [{depth: 1, bias_layers: later_conv}]}",
        "{axes: {protocol: [paired, shared_weights], seed: 3}, exclude: [{protocol: paired, bias: true, seed: 2}]}",
        "settings: {train_examples: 3500, protocol: shared_weights}",
        "{axes: {dataset: [digits, mnist5k], train_examples: [99, 3000]},"
        " exclude: [{dataset: digits, train_examples: 3000}]}",
        "{axes: {train_examples: [8, 32], batch_size: [8, 16]}, exclude: [{train_examples: 8, batch_size: 16}]}",
    ],
)
def test_what_would_make_no_sense_together_may_be_excluded(text: str) -> None:
    assert space(text).run_count() > 0


def test_what_was_launched_once_is_read_whatever_is_allowed_by_now() -> None:
    text = b"settings: {train_examples: 10}"
    assert parse(text, Path("x.yaml"), launched=True).fixed["train_examples"] == 10
    with pytest.raises(InputError, match="larger than the training set"):
        parse(text, Path("x.yaml"))


def test_settings_of_every_kind_are_accepted_together() -> None:
    text = "settings: {activation: gelu, pooling: max, dropout: 0.5, optimizer: adamw, weight_decay: 0.1, depth: 16}"
    assert space(text).run_count() == 2
    text = "settings: {schedule: cosine, precision: bfloat16, momentum: 0.9, bias_layers: all, width: 1024, hidden: 0}"
    assert space(text).run_count() == 2
