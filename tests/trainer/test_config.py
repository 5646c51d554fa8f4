"""The training configuration: strict, with overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import rvos_edge.trainer.configs
from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.config import MlmConfig, StagesConfig, TrainConfig, load_config

_DOCUMENT = {
    "name": "small",
    "model": {"preset": "test"},
    "data": {"sources": [{"kind": "synthetic", "share": 1.0}]},
    "iterations": 5,
}
_CONFIGS = Path(str(rvos_edge.trainer.configs.__file__)).parent
_SHIPPED = sorted(path for path in _CONFIGS.glob("*.yaml") if path.stem != "held-out")


@pytest.fixture(autouse=True)
def _data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(_DOCUMENT), encoding="utf-8")
    return path


@pytest.mark.parametrize("shipped", _SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load_by_name(shipped: Path) -> None:
    config = load_config(Path(shipped.stem))
    assert config == load_config(shipped)
    assert config.name == shipped.stem or shipped.stem.startswith(config.name)
    runs = config.stages if isinstance(config, StagesConfig) else [config]
    assert all(run.model_config_of().size for run in runs if isinstance(run, (TrainConfig, MlmConfig)))


def test_there_is_an_edge_configuration() -> None:
    assert "edge" in [path.stem for path in _SHIPPED]


def test_paths_of_shipped_configurations_begin_at_the_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    mlm = load_config(Path("mlm"), ["DATA_ROOT=/disk/my sets"])
    assert isinstance(mlm, MlmConfig)
    assert mlm.text == "/disk/my sets/weights/bert-base-uncased"
    assert load_config(Path("mlm")).text == "/data/weights/bert-base-uncased"  # type: ignore[union-attr]
    monkeypatch.delenv("DATA_ROOT")
    with pytest.raises(UserError, match=r"mlm.yaml reads \$DATA_ROOT/weights/.*: say where .* --set DATA_ROOT="):
        load_config(Path("mlm"))
    assert load_config(Path("quickstart")).name == "quickstart"
    assert not [path for path in _SHIPPED if "../" in path.read_text(encoding="utf-8")]


def test_overrides_reach_nested_keys_and_lists(file: Path) -> None:
    config = load_config(
        file,
        [
            "iterations=7",
            "optimizer.lr=1e-3",
            "optimizer.clip=1.0",
            "model.size=[96, 128]",
            "data.sources.0.share=0.5",
            "weights.raft=null",
            "name=a=b",
        ],
    )
    assert (config.iterations, config.optimizer.lr, config.optimizer.clip) == (7, 0.001, 1.0)
    assert config.model_config_of().size == (96, 128)
    assert config.data.sources[0].share == 0.5
    assert config.name == "a=b"


def test_sources_are_added_and_replaced(file: Path) -> None:
    added = load_config(file, ["data.sources.+={kind: coco, root: here, share: 0.5}", "data.sources.1.share=0.25"])
    assert isinstance(added, TrainConfig)
    assert [(source.kind, source.share) for source in added.data.sources] == [("synthetic", 1.0), ("coco", 0.25)]
    replaced = load_config(file, ["data.sources.0={kind: coco, root: here, share: 1}"])
    assert isinstance(replaced, TrainConfig)
    assert [source.kind for source in replaced.data.sources] == ["coco"]


@pytest.mark.parametrize("name", ["edge", "mlm", "finetune-davis16"])
def test_a_shown_configuration_is_the_same_with_every_key_explained(name: str, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["train", name, "--show", "--set", "name=mine"])
    assert shown.exit_code == 0, shown.output
    (tmp_path / "shown.yaml").write_text(shown.stdout, encoding="utf-8")
    again = load_config(tmp_path / "shown.yaml")
    assert again == load_config(Path(name), ["name=mine"])
    assert "# " in shown.stdout


def test_the_shipped_configurations_are_listed_with_their_purpose() -> None:
    listed = CliRunner().invoke(app, ["train", "--list"]).stdout.splitlines()
    assert listed[::2] == [path.stem for path in _SHIPPED]
    assert all(purpose.startswith("    ") and purpose.endswith(".") for purpose in listed[1::2])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sources.7={kind: synthetic, share: 1}", r"add to a list with --set 'data\.sources\.\+="),
        ("accumulate=3", "accumulate must divide batch into parts of at least 2, got 8/3"),
        ("iterations", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("iteratoins=3", "unknown key 'iteratoins'"),
        ("optimizer.rate=3", r"unknown key 'optimizer\.rate'"),
        (
            "loss.dise=1",
            "--set loss.dise=1: unknown key 'loss.dise'; known keys there are alignment, background, contrast, dice",
        ),
        ("data.sources.0.rot=x", "known keys there are kind, share.$"),
        ("data.sources.1.share=3", "'1' is not in the configuration"),
        ("name.first.second=x", "not in the configuration"),
        ("name.first=x", "not in the configuration"),
        ("name=[", "not readable YAML"),
        ("iterations=0", "greater than 0"),
        ("optimizer.name=lion", r"'optimizer\.name'"),
        ("data.size=[100, 96]", "multiples of 32, got 100x96"),
        ("batch=1", "greater than or equal to 2"),
        ("epochs=3", "give iterations or epochs, one of the two"),
        ("iterations=null", "give iterations or epochs, one of the two"),
        ("amp=on", "'amp'"),
        ("task=segment", "'task'"),
        ("task=mlm", "'sources': Field required"),
        ("model.preset=huge", "Unknown preset 'huge'"),
        ("model.colour=red", "unknown key 'colour'"),
        ("model={}", r"needs model\.preset"),
        ("data.sources=[]", r"'data\.sources'"),
    ],
)
def test_a_wrong_override_is_refused_in_one_sentence(file: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(file, [override])
    assert "\n" not in str(caught.value)


def test_resuming_a_folder_without_a_run_names_the_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--resume", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert f"--resume {tmp_path / 'nowhere'}: there is no run to continue" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "not readable YAML"), ("- 1", "mapping of keys"), ("", "mapping")]
)
def test_a_file_that_is_no_configuration_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_an_unknown_file_is_refused_even_where_a_shipped_one_has_its_name(tmp_path: Path) -> None:
    for path in (Path("nosuch"), tmp_path / "edge.yaml"):
        with pytest.raises(UserError, match=r"does not exist; give a YAML file, or one of: .*edge"):
            load_config(path)


def test_the_stored_configuration_is_the_same_run(file: Path, tmp_path: Path) -> None:
    """A run writes config.json, and names it when asked to resume with another one."""
    config = load_config(file, ["optimizer.lr=0.00001", "model.raft={iterations: 3}"])
    (tmp_path / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
    assert load_config(tmp_path / "config.json").model_dump_json() == config.model_dump_json()


@pytest.mark.parametrize("said", ["off", "false", '"off"'])
def test_amp_off_is_accepted_although_yaml_parses_a_boolean(said: str, file: Path) -> None:
    assert load_config(file, [f"amp={said}"]).amp == "off"


def test_epochs_are_those_of_a_single_source(file: Path) -> None:
    config = load_config(file, ["iterations=null", "epochs=2"])
    assert isinstance(config, TrainConfig)
    assert config.epochs == 2
    with pytest.raises(UserError, match="epochs are those of a single source"):
        load_config(
            file,
            ["iterations=null", "epochs=2", "data.sources=[{kind: synthetic, share: 1}, {kind: synthetic, share: 1}]"],
        )


def test_runs_differ_in_what_shapes_their_learning(file: Path) -> None:
    config = load_config(file)
    assert isinstance(config, TrainConfig)
    for harmless in ("workers=3", "threads=1", "log_every=1", "checkpoint_every=7"):
        assert config.differences(load_config(file, [harmless])) == []  # type: ignore[arg-type]
    other = load_config(file, ["iterations=6", "optimizer.lr=0.5", "workers=3"])
    assert config.differences(other) == ["optimizer"]  # type: ignore[arg-type]


def test_a_text_model_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "text.yaml"
    file.write_text(
        "{task: mlm, name: text, model: {preset: test}, sources: [{kind: davis, root: here, share: 1}]}",
        encoding="utf-8",
    )
    config = load_config(file, ["batch=4"])
    assert isinstance(config, MlmConfig)
    assert (config.batch, config.masked, config.epochs) == (4, 0.15, 1)
