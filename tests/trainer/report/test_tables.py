"""Tables and curves, and the runs that they compare."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.reports import recording, run
from support.tiny_checkpoint import write_checkpoint
from torch.utils.tensorboard import SummaryWriter

from rvos_edge.errors import UserError
from rvos_edge.trainer.config import load_config
from rvos_edge.trainer.evaluate.tables import ResultTable
from rvos_edge.trainer.report.curves import read_curves, smooth
from rvos_edge.trainer.report.runs import (
    differences,
    read_runs,
    seed_groups,
    train_command,
)
from rvos_edge.trainer.report.tables import as_csv, as_latex, read_published, report_tables


def test_runs_are_compared_pairwise_and_seeds_by_their_spread(tmp_path: Path) -> None:
    values = {"one": [0.5, 0.3], "two": [0.6, 0.4], "three": [0.7, 0.8]}
    recordings = [recording(tmp_path / name, {"a": [[values[name][0]]], "b": [[values[name][1]]]}) for name in values]
    config = {"loss": {"dice": 1}, "optimizer": {"lr": 0.1}}
    recordings = [
        replace(kept, run=replace(kept.run, card={"iterations": 9, "config": {**config, "seed": seed}}))
        for seed, kept in enumerate(recordings)
    ]
    tables, _ = report_tables(recordings, "davis16", tmp_path, read_published("davis16"))
    assert [row[2] for row in tables["runs"].rows] == ["seed=0", "seed=1", "seed=2"]
    assert tables["results"].rows[-1][:2] == ("mean of one, two, three", "55.0 ± 18.0")
    videos = tables["videos-j"]
    assert videos.heads == ("video", "one", "two", "three", "two - one", "three - one")
    assert videos.rows[0] == ("a", "50.0", "60.0", "70.0", "10.0", "20.0")
    assert videos.rows[-2:] == [
        ("deviation over videos", "", "", "", "0.0", "21.2"),
        ("better in", "", "", "", "2 of 2", "2 of 2"),
    ]


def test_table_1_has_the_papers_row(tmp_path: Path) -> None:
    kept = recording(tmp_path / "kept", {"car-turn": [[0.5]], "hike": [[0.7]]})
    listed = [{"name": name, "set": "train", "attributes": ["AC"]} for name in ("car-turn", "bear")]
    (tmp_path / "db_info.yml").write_text(json.dumps({"sequences": listed}))
    table = report_tables([kept], "davis16", tmp_path, read_published("davis16"))[0]["table-1"]
    assert [row[:3] for row in table.rows] == [
        ("kept", "50.0", "-"),
        ("HINet (paper)", "85.1", "88.3"),
        ("videos here", "1", "0"),
    ]
    assert "which these are not" in table.note
    assert "does not list hike" in table.note


def test_rows_of_other_papers_are_added_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text("davis16: {Theirs: {J: 81, F: 82.25, source: 'A Paper, table 2'}}\n")
    kept = recording(tmp_path / "kept", {"hike": [[0.7]]})
    table = report_tables([kept], "davis16", tmp_path, read_published("davis16", file))[0]["results"]
    assert table.rows[-1] == ("Theirs", "81.0", "-", "-", "82.2", "-", "-")
    assert table.note == "Theirs: A Paper, table 2."
    assert read_published("jhmdb", file) == {}
    for text, said in (
        ("davis16: {Theirs: {JF: 81}}", "'JF: 81' of davis16 is not .*J; J recall"),
        ("[", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_published("davis16", file)


def test_tables_are_written_as_csv_and_latex() -> None:
    table = ResultTable("Shares, %", ("run", "J"), [("a_b & c", "50.0 ± 1.0"), ("d, e", "-")])
    assert list(csv.reader(as_csv(table).splitlines())) == [["run", "J"], ["a_b & c", "50.0 ± 1.0"], ["d, e", "-"]]
    assert r"a\_b \& c & 50.0 $\pm$ 1.0 \\" in as_latex(table)
    assert as_latex(table).count(r"\\") == 3


def test_the_training_command_names_the_shipped_configuration_and_what_was_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")
    config = load_config(Path("edge-ablation"), ["model.fusion=single", "model.flow=none", "loss.alignment=0.0"])
    trained = run(config=config.model_dump(mode="json"), iterations=300, batch=8)
    command = train_command(trained)
    assert command is not None
    assert command.startswith("rvos-edge train edge-ablation --output runs/run --set ")
    changes = re.findall(r"--set (\S+)", command)
    assert sorted(changes) == ["loss.alignment=0.0", "model.flow=none", "model.fusion=single"]
    again = load_config(Path("edge-ablation"), changes)
    assert again == config, "the command trains the same"
    assert trained.trained == "300 iterations of 8 frames of 160x288"
    mean = replace(trained, card={"averaged": 2, "history": [trained.card]})
    assert mean.trained == "300 iterations of 8 frames of 160x288, then the mean of 2 of them"
    assert train_command(run()) is None, "nothing was recorded"


def test_the_training_command_falls_back_on_the_runs_own_configuration(tmp_path: Path) -> None:
    own = replace(run(config={"name": "nobody-ships-this"}), path=tmp_path / "checkpoint")
    assert train_command(own) is None
    (tmp_path / "config.json").write_text("{}")
    assert train_command(own) == f"rvos-edge train {tmp_path}/config.json --output {tmp_path}-again"


def test_what_differs_is_told_and_seeds_are_one_group() -> None:
    config = {"optimizer": {"lr": 0.1}, "workers": 1, "seed": 1}
    one = run(config=config, iterations=300)
    two = run(config={**config, "workers": 2, "validation": {"every": 5}, "wandb": "mine"}, iterations=300)
    assert differences([one, two]) == [{}, {}], "what changes nothing may differ"
    three = run(flow="both", config={**config, "optimizer": {"lr": 0.2}}, iterations=900, history=[{"iterations": 5}])
    told = {"model.flow": "both", "optimizer.lr": "0.2", "iterations": "900", "earlier runs": "1"}
    assert differences([one, three])[1] == told
    assert differences([one, run()]) == [{}, {}], "nothing is known of the second's training"
    again = run(config={**config, "seed": 2}, iterations=300)
    assert seed_groups([one, three, again, run()]) == [[0, 2]]


def test_curves_of_a_resumed_run_are_joined_and_do_not_lag(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}
    for start in (0, 2):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{start}") as board:
            for step in range(start, start + 3):
                board.add_scalar("loss", 10 * start + step, step)
            board.add_scalar("lr", 1, start)
            board.add_scalar("validation/j", 0.5, start)
    curves = read_curves(tmp_path)
    assert {tag: list(points) for tag, points in curves.items()} == {
        "loss": [0, 1, 2, 3, 4],
        "lr": [0, 2],
        "validation/j": [0, 2],
    }
    ramp = np.arange(50.0)
    assert smooth(ramp)[3:-3] == pytest.approx(ramp[3:-3])
    assert np.abs(np.diff(smooth(ramp % 2))[5:-5]).max() < 0.5


def test_runs_are_known_by_their_configuration(tmp_path: Path) -> None:
    paths = {flow: write_checkpoint(tmp_path / flow, flow=flow) for flow in ("none", "both")}
    none, both = read_runs([f"s={paths['none']}", f"f={paths['both']}"])
    assert (none.flow, both.flow, both.fusion) == ("none", "both", "hierarchical")
    with pytest.raises(UserError, match="at least one --run"):
        read_runs([])
    long = run(iterations=5, batch=2, history=[{"samples": 9}, {"samples": 8}, {"averaged": 3}])
    assert long.trained == "1 earlier stages, then 8 frames, then the mean of 3 of them, then 5 iterations of 2 frames"
