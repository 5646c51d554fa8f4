"""Nouns without pictures: their vectors go towards those of the nearest taught kind, and all others stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rvos_edge.errors import UserError
from rvos_edge.nouns import load_nouns
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rvos_edge.trainer.config import NounsConfig
from rvos_edge.trainer.data.generate.held_out import load_held_out
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import small_tokenizer, tokenize
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.tasks.nouns import NounLesson, fit, make_lessons, taught_nouns, train_nouns


def _rows(*words: str) -> frozenset[int]:
    rows = [load_nouns().row(word) for word in words]
    assert None not in rows
    return frozenset(row for row in rows if row is not None)


def _config(checkpoint: Path, **changes: object) -> NounsConfig:
    document = {"name": "nouns", "task": "nouns", "init_from": str(checkpoint), "kinds": ["insect"], **changes}
    return NounsConfig.model_validate(document)


def _checkpoint(path: Path) -> Path:
    torch.manual_seed(0)
    model = HINet(config=model_config("test"))
    torch.nn.init.normal_(model.sentence.bert.embeddings.word_embeddings.weight)  # words that differ
    save_checkpoint(path, Checkpoint(model, small_tokenizer(512)))
    return path


def test_categories_kinds_and_the_nouns_of_sentences_are_taught() -> None:
    taught = taught_nouns(["insect"], ["a camel by the canoe"], ["a llama that runs"], least=2)
    assert _rows("dog", "insect", "camel", "canoe") <= taught
    assert taught.isdisjoint(_rows("llama", "okapi", "zebra"))  # too few captions, none, and a held-out category
    assert _rows("llama") <= taught_nouns(["insect"], [], ["a llama that runs", "the llama"], least=2)


def test_a_lesson_says_the_same_of_a_noun_and_of_its_nearest_taught_kind() -> None:
    lessons = make_lessons(_rows("dog", "animal"), ["A man with his horse."], seed=0)
    wider = {lesson.sentence: lesson.wider for lesson in lessons}
    assert wider["a man with his horse"] == "a man with his horse"
    said, wide = next(one for one in lessons if one.sentence.startswith("the ") and "dalmatian" in one.sentence)
    assert said.replace("dalmatian", "dog") == wide
    assert any("dog" in said and said == wide for said, wide in lessons)


def test_held_out_words_are_never_said() -> None:
    held = load_held_out()
    lessons = make_lessons(_rows("dog", "animal", "vehicle"), ["two zebras", "a horse"], seed=0)
    assert lessons
    assert not [lesson.sentence for lesson in lessons if held.says(lesson.sentence)]


def test_vectors_of_untaught_nouns_move_and_others_stay(tmp_path: Path) -> None:
    start = load_checkpoint(_checkpoint(tmp_path / "start"))
    loaded = load_checkpoint(tmp_path / "start")
    same = ("the horse", "a red bus", "a man")
    lessons = [NounLesson("the wasp", "the insect"), *(NounLesson(text, text) for text in same)]
    before, after = fit(loaded, lessons, _config(tmp_path / "start", epochs=400, batch=4, lr=0.01, share=1.0))
    assert after < 0.6 * before
    ids, mask = tokenize(start.tokenizer, ["the wasp", "the insect", "the horse"], 64)
    with torch.no_grad():
        old, new = (torch.cat(one.model.eval().encode_text(ids, mask), -1) for one in (start, loaded))
    assert float((new[0] - old[1]).norm()) < 0.8 * float((old[0] - old[1]).norm())
    assert float((new[2] - old[2]).norm()) < 0.4 * float((old[0] - old[1]).norm())
    for name, tensor in start.model.state_dict().items():
        if not name.startswith("language."):
            torch.testing.assert_close(loaded.model.state_dict()[name], tensor)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'zorbling' is no known noun"):
        train_nouns(_config(_checkpoint(tmp_path / "start"), kinds=["zorbling"]), tmp_path / "run")
