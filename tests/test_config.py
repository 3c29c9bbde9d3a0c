"""Configuration: every typing mistake is one line that names what was meant, and a value has one canonical text."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from instrunet import experiment
from instrunet.config import Spec, canonical_json, load_tree
from instrunet.errors import ConfigError
from instrunet.experiment import Experiment
from instrunet.models import MODELS

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
Load = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """An experiment from the text of its file and overrides."""

    def of(text: str, *overrides: str) -> Experiment:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return experiment.load(path, overrides)

    return of


@pytest.fixture
def message(load: Load) -> Callable[..., str]:
    """What is said of a mistake, without the name of the file."""

    def of(text: str, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        assert "\n" not in str(caught.value)
        return re.sub(r"^\S*x\.yaml:? ", "", str(caught.value))

    return of


@pytest.mark.parametrize("path", sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("tune/*.yaml")]), ids=lambda p: p.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    loaded = experiment.load(path)
    assert loaded == Experiment.model_validate(loaded.model_dump(mode="json"))
    assert (loaded.tune is not None) == (path.parent.name == "tune")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nam: x", "unknown field nam; did you mean name?"),
        ("train: {epoch: 3}", "unknown field train.epoch; did you mean epochs?"),
        ("train: {specaugment: {time_maks: 3}}", "unknown field train.specaugment.time_maks; did you mean time_masks?"),
        ("model: {name: task8, dropot: 0.1}", "unknown field model.dropot; did you mean dropout?"),
        (
            "model: {name: iteration11, picture: {sizes: 3}}",
            "unknown field model.picture.sizes; did you mean size?",
        ),
        # A field that is called as its union's tag: both are a step of pydantic's path
        ("data: {name: synth, synth: {sed: 3}}", "unknown field data.synth.sed; did you mean seed?"),
        (
            "front: {features: [{name: logmel, nmels: 64}]}",
            "unknown field front.features.0.nmels; did you mean n_mels?",
        ),
        (
            "split: {zzz: 1}",
            "unknown field split.zzz; known here: by, fold, folds, keep_together, seed, test, val",
        ),
        ("model: {name: tsk8}", "unknown model 'tsk8'; did you mean task8?"),
        ("model: itration11", "unknown model 'itration11'; did you mean iteration11?"),
        ("data: {name: cvs, root: /x}", "unknown data 'cvs'; did you mean csv?"),
        ("model: {name: qqqq}", f"unknown model 'qqqq'; known: {', '.join(MODELS)}"),
    ],
)
def test_a_typo_names_the_nearest(message: Callable[..., str], text: str, expected: str) -> None:
    assert message(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: csv", "data.root is required; give it in the file or as data.root=VALUE"),
        ("train: {epochs: 0}", "train.epochs: input should be greater than 0, got 0"),
        ("train: {learning_rate: .nan}", "train.learning_rate: input should be a finite number, got nan"),
        (
            "{split: {val: 0}, train: {schedule: one_cycle}}",
            "split.val=0 leaves no clips to choose by, which train.keep=best with train.schedule=one_cycle needs: set "
            "split.val=0.15, or train.keep=last",
        ),
        (
            "{split: {val: 0}, train: {keep: last}}",
            "split.val=0 leaves no clips to choose by, which train.keep=last with train.schedule=plateau needs",
        ),
        ("split: {val: 0.6, test: 0.5}", "split: val + test must leave something to train on; got 0.6 + 0.5"),
        ("train: 3", "train: input should be a valid dictionary or instance of TrainSpec, got 3"),
        ("1: 2", "1: keys should be strings, got 1"),
        ("[1, 2]", "should hold `key: value` lines, it holds a list"),
        ("train: {epochs: 3", "is not valid YAML: expected ',' or '}', but got '<stream end>' at line 1, column 18"),
        ("name: 2024-13-01", "is not valid YAML: month must be in 1..12, not 13"),
    ],
)
def test_a_wrong_value_is_said_with_its_place(message: Callable[..., str], text: str, expected: str) -> None:
    # Python's own wording of a bad month grew by the second half in 3.14
    assert message(text).startswith(expected.removesuffix(", not 13"))


def test_all_mistakes_are_told_at_once(message: Callable[..., str]) -> None:
    told = message("train: {epoch: 3, batch_size: -1}\nnam: x")
    assert len(told.split("; ")) == 5
    for part in ("train.epoch; did you mean epochs?", "train.batch_size: input should be", "nam; did you mean name?"):
        assert part in told


def test_unknown_task_names_the_known_ones(message: Callable[..., str]) -> None:
    assert re.fullmatch(r"task must be one of any, .*instruments, .*; got 'nope'", message("task: nope"))


@pytest.mark.parametrize(
    "text",
    [
        "tracking: {uri: 'http://u:hunter2@host', alais: a, enabled: maybe}",
        "tracking: [hunter2]",
        "tracking: {uri: {password: hunter2}}",
        "tracking: {uri: 'http://u:hunter2@host', enabled: true",  # not closed
        "data: {name: csv, password: hunter2}",
    ],
)
def test_what_stands_beside_a_mistake_is_not_echoed(message: Callable[..., str], text: str) -> None:
    assert "hunter2" not in message(text)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.epochs=7", ("train", "epochs"), 7),
        ("train.learning_rate=1e-3", ("train", "learning_rate"), 0.001),
        ("train.learning_rate=2.5E-4", ("train", "learning_rate"), 0.00025),
        ("train.specaugment=null", ("train", "specaugment"), None),
        ("tracking.enabled=false", ("tracking", "enabled"), False),
        ("tracking.experiment=a=b", ("tracking", "experiment"), "a=b"),
        ("tracking.experiment=1e5x", ("tracking", "experiment"), "1e5x"),
        ("tracking.experiment=[", ("tracking", "experiment"), "["),
        ("model.dropout=.5", ("model", "dropout"), 0.5),
        ("out=/a/b", ("out",), Path("/a/b")),
    ],
)
def test_an_override_means_what_it_says(load: Load, override: str, key: tuple[str, ...], value: object) -> None:
    node: object = load("", override)
    for part in key:
        node = getattr(node, part)
    assert node == value
    assert type(node) is type(value) or isinstance(value, Path)


def test_numbers_in_scientific_notation_are_numbers_everywhere(load: Load) -> None:
    written = load("tune: {space: {train.learning_rate: {loguniform: [1e-4, 1.5e-2]}}}").tune
    given = load("tune: {}", "tune.space={train.learning_rate: {loguniform: [1e-4, 1.5e-2]}}").tune
    assert written is not None
    assert written == given
    assert written.space == {"train.learning_rate": {"loguniform": [0.0001, 0.015]}}


def test_overrides_reach_into_lists(load: Load) -> None:
    text = "front: {features: [{name: logmel, n_mels: 64}]}"
    feature = load(text, "front.features.0.n_mels=32").front.features[0]
    assert feature.n_mels == 32
    assert load("", "front.features=[{name: logmel, n_mels: 16}]").front.features[0].n_mels == 16


@pytest.mark.parametrize("override", ["model=task8", "model.name=task8"])
def test_another_component_drops_the_fields_of_the_old(load: Load, override: str) -> None:
    text = "model: {name: iteration11, dropout: 0.4, l2_dense: 0.1}"
    assert load(text, override).model == load("model: task8").model
    assert load(text, override, "model.dropout=0.1").model.dropout == 0.1


def test_naming_the_same_component_keeps_its_fields(load: Load) -> None:
    assert load("model: {name: iteration11, dropout: 0.4}", "model.name=iteration11").model.dropout == 0.4


def test_fields_without_a_name_are_those_of_the_default(load: Load) -> None:
    default = Experiment()
    assert load("model: {dropout: 0.3}").model == default.model.model_copy(update={"dropout": 0.3})
    assert load("", "data.synth.seed=3").data.name == default.data.name
    assert load("model: task8", "model.dropout=0.3").model.dropout == 0.3


def test_an_override_of_one_place_leaves_the_other_that_shares_its_anchor(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &shared {deep: {x: 1}}\nb: *shared\n", encoding="utf-8")
    assert load_tree(path, ["b.deep.x=2"]) == {"a": {"deep": {"x": 1}}, "b": {"deep": {"x": 2}}}


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", "train.=3", ""])
def test_an_override_without_key_or_value_is_refused(message: Callable[..., str], override: str) -> None:
    assert message("", override) == f"expected an override like train.epochs=3, got {override!r}"


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        (
            "train: {epochs: 3}",
            "train.epochs.x=1",
            "cannot set train.epochs.x: epochs is the value 3, not a group of fields",
        ),
        ("a: [1, 2]", "a.2=1", "cannot set a.2: '2' is not a position in a list of 2"),
        ("a: [1, 2]", "a.-1=1", "cannot set a.-1: '-1' is not a position in a list of 2"),
        ("a: [1, 2]", "a.²=1", "cannot set a.²: '²' is not a position in a list of 2"),
        ("a: [{b: 1}]", "a.x.b=1", "cannot set a.x.b: 'x' is not a position in a list of 1"),
        ("", "train.epoch=3", "unknown field train.epoch; did you mean epochs?"),
        ("", "train.epochs=", "train.epochs: input should be a valid integer, got None"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(
    message: Callable[..., str], text: str, override: str, expected: str
) -> None:
    assert message(text, override) == expected


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        experiment.load(tmp_path / "smok.yaml")
    expected = f"expected a configuration file at {tmp_path}/smok.yaml, found none; did you mean {tmp_path}/smoke.yaml?"
    assert str(caught.value) == expected
    with pytest.raises(ConfigError, match=r"found none; give the path of a YAML file, see configs/"):
        experiment.load(tmp_path / "no" / "such.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.yaml is not valid YAML: .*can't decode byte 0xff"):
        experiment.load(path)


def test_an_empty_file_is_the_defaults(load: Load) -> None:
    assert load("") == Experiment()
    assert load("# nothing\n") == Experiment()


def test_canonical_text_does_not_depend_on_the_order_of_writing(load: Load) -> None:
    one = load("name: a\ntrain: {epochs: 3, seed: 1}")
    two = load("train: {seed: 1, epochs: 3}\nname: a")
    assert one.canonical() == two.canonical()
    assert one.fingerprint() == two.fingerprint()
    assert canonical_json({"b": 1, "a": {"d": "ü", "c": None}}) == '{"a":{"c":null,"d":"ü"},"b":1}'


class Small(Spec):
    name: Literal["small"] = "small"
    size: int = 1


class Large(Spec):
    name: Literal["large"] = "large"
    parts: tuple[str, ...] = ("a",)


class Tree(Spec):
    rate: float = 1.0
    item: Annotated[Small | Large, Field(discriminator="name")] = Small()
    items: tuple[Annotated[Small | Large, Field(discriminator="name")], ...] = ()
    maybe: Small | None = None


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 1.0000001},
        {"item": Small(size=2)},
        {"item": Large()},
        {"item": Large(parts=("a", "b"))},
        {"item": Large(parts=("b", "a"))},
        {"items": (Small(), Large())},
        {"items": (Large(), Small())},
        {"maybe": Small()},
    ],
)
def test_a_fingerprint_changes_with_any_field(change: dict[str, object]) -> None:
    others = [{}, {"item": Large()}, {"item": Large(parts=("a", "b"))}, {"items": (Small(), Large())}]
    prints = {Tree.model_validate(other).fingerprint() for other in others if other != change}
    mine = Tree.model_validate(change).fingerprint()
    assert re.fullmatch(r"[0-9a-f]{16}", mine)
    assert mine not in prints


def test_a_whole_number_is_the_same_value_as_its_float() -> None:
    assert Tree.parse({"rate": 1}, "here").fingerprint() == Tree(rate=1.0).fingerprint()


def test_a_typo_in_an_item_of_a_list_of_unions_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^here: unknown field items\.1\.sice; did you mean size\?$"):
        Tree.parse({"items": [{"name": "large"}, {"name": "small", "sice": 3}]}, "here")
    with pytest.raises(ConfigError, match=r"^here: unknown items\.0 'smal'; did you mean small\?$"):
        Tree.parse({"items": [{"name": "smal"}]}, "here")
    with pytest.raises(ConfigError, match=r"^here: items\.0\.name is required, one of small, large$"):
        Tree.parse({"items": [{"size": 1}]}, "here")
    with pytest.raises(ConfigError, match=r"^here: unknown field maybe\.sice; did you mean size\?$"):
        Tree.parse({"maybe": {"sice": 3}}, "here")


def test_a_spec_is_frozen() -> None:
    spec = Small()
    with pytest.raises(ValidationError, match="frozen"):
        spec.size = 3  # type: ignore[misc]
    assert hash(spec) == hash(Small())


def test_where_a_run_is_written_does_not_change_its_fingerprint() -> None:
    same = ("out=elsewhere", "tracking.enabled=false", "tune={}", "data.root=/x", "cluster.cpus_per_worker=0.5")
    other = ("train.seed=1", "cluster.workers=5", "split.seed=1", "data.synth.seed=1", "front.window_s=2")
    path = CONFIGS / "smoke.yaml"
    smoke = experiment.load(path).run_fingerprint()
    assert {experiment.load(path, [o]).run_fingerprint() for o in same} == {smoke}
    assert smoke not in {experiment.load(path, [o]).run_fingerprint() for o in other}
    assert smoke != Experiment().run_fingerprint()
