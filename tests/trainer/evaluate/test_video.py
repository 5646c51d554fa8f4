"""Running and scoring videos, on data sets in memory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.drawn_masks import id_video
from support.fake_clips import Fake, FakeClips, Masks, nothing

from rvos_edge.errors import UserError
from rvos_edge.queries import TaughtQuery
from rvos_edge.streaming.ledger import Ledger
from rvos_edge.trainer.data.readers.base import Query, tidy
from rvos_edge.trainer.evaluate.masks import MaskFolder
from rvos_edge.trainer.evaluate.pairs import read_pairs
from rvos_edge.trainer.evaluate.scorers import RegionScorer
from rvos_edge.trainer.evaluate.video import Rules, evaluate_clips

# What DAVISEvaluation of davis2017-evaluation (commit ac7c43fca9) finds for the two videos below and the answers
# combined by higher ids: its semi-supervised task; the same without dropping frames; and its measures of each object
# alone. Mean, recall and decay of J, then of F.
SEMI_SUPERVISED = (0.3329518554922763, 0.3, -0.052167173006507715, 0.2789566296543342, 0.1, -0.02965120935658973)
PER_OBJECT = (0.057279435430996464, 0.37109360865499125, 0.39046843283769733)
EVERY_FRAME = (
    *(0.33685927429006735, 0.2857142857142857, -0.0741819447115289),
    *(0.2683634322229694, 0.07142857142857142, -0.04522867292498233),
)
BINARY = (
    *(0.31236017266844757, 0.23809523809523805, -0.12553287899896745),
    *(0.22956752782112252, 0.047619047619047616, -0.05981215155461054),
)
# Its unsupervised task where the answers of the three objects are exchanged; the same with void pixels in the middle of
# each frame; and the latter without matching.
MATCHED = (
    *(0.30723421167890014, 0.16666666666666666, -0.06525922733024091),
    *(0.256107551231709, 0.07142857142857142, -0.014908509065142276),
)
MATCHED_WITH_VOID = (
    *(0.2785060351881338, 0.11904761904761903, -0.03488834854863356),
    *(0.27751247097209086, 0.09523809523809523, -0.028786866396211325),
)
EVERY_FRAME_WITH_VOID = (
    *(0.017178577932369165, 0.0, -0.016942930051349905),
    *(0.05932221203235494, 0.0, 0.0073195909130663725),
)
FIGURES = ("j", "j_recall", "j_decay", "f", "f_recall", "f_decay")


def davis17(videos: dict[str, NDArray[np.uint8]], keys: dict[str, int]) -> FakeClips:
    """Every video has the queries ``keys``: the object's id by key; the expression is the key."""
    asked = [Query(key, key, number) for key, number in keys.items()]
    truth = {
        name: [np.stack([frame == query.object_id for query in asked]) for frame in ids] for name, ids in videos.items()
    }
    return FakeClips(dict.fromkeys(videos, asked), truth)


def two_videos() -> tuple[dict[str, NDArray[np.uint8]], list[Masks]]:
    videos, answers = zip(*(id_video(seed) for seed in range(2)), strict=True)
    return {"one": videos[0], "two": videos[1]}, list(answers)


@pytest.mark.parametrize(("protocol", "expected"), [("semi-supervised", SEMI_SUPERVISED), ("every-frame", EVERY_FRAME)])
def test_davis17_equals_the_public_evaluation(tmp_path: Path, protocol: str, expected: tuple[float, ...]) -> None:
    videos, answers = two_videos()
    clips = davis17(videos, {"0": 3, "1": 1, "2": 2})
    ids = {"0": 3, "1": 1, "2": 2}
    fake = Fake(lambda frame, query: answers[frame[0, 0, 0]][ids[query] - 1, frame[0, 0, 1]])
    rules = Rules(protocol=protocol, masks=MaskFolder(tmp_path))
    figures = evaluate_clips(fake, clips, "davis17", rules=rules)
    assert [figures["standard"][name] for name in FIGURES] == pytest.approx(expected, rel=0, abs=1e-15)
    assert figures["standard"]["j_and_f"] == pytest.approx((expected[0] + expected[3]) / 2, rel=0, abs=1e-15)
    assert figures["objects"] == 6
    if protocol == "every-frame":
        assert [figures["binary"][name] for name in FIGURES] == pytest.approx(BINARY, rel=0, abs=1e-15)
    if protocol == "semi-supervised":
        one = figures["videos"]["one"]["sets"]["0"]["standard"]
        assert [one[number]["j"] for number in "123"] == pytest.approx(PER_OBJECT, rel=0, abs=1e-15)
        assert figures["videos"]["one"]["frames"] == 5
    # The kept masks are those that were scored, of all frames.
    combined = cv2.imread(str(tmp_path / "Combined/0/two/00003.png"), cv2.IMREAD_UNCHANGED)
    assert combined.shape == (72, 110, 3), "a palette, which OpenCV reads as colours"
    single = cv2.imread(str(tmp_path / "Annotations/two/1/00003.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(single, answers[1][0, 3] * 255)
    assert len(list((tmp_path / "Annotations").rglob("*.png"))) == 2 * 3 * 7


class VoidInTheMiddle(FakeClips):
    """Clips whose pixels [10:40, 20:60] are void."""

    def void(self, video: str, index: int) -> Masks:
        truth = self.truth[video][index]
        assert truth is not None
        out = np.zeros(truth.shape[1:], bool)
        out[10:40, 20:60] = True
        return out


@pytest.mark.parametrize(
    ("protocol", "void", "expected"),
    [
        ("unsupervised", False, MATCHED),
        ("unsupervised", True, MATCHED_WITH_VOID),
        ("every-frame", True, EVERY_FRAME_WITH_VOID),
    ],
)
def test_davis17_unsupervised_and_void_equal_the_public_evaluation(
    protocol: str, void: bool, expected: tuple[float, ...]
) -> None:
    """The answers for object 1 are those for 2, and so on: only matching puts that right."""
    videos, answers = two_videos()
    if void:
        for ids in videos.values():
            ids[:, 10:40, 20:60] = 0
    known = davis17(videos, {"0": 1, "1": 2, "2": 3})
    clips = (VoidInTheMiddle if void else FakeClips)(known.asked, known.truth)
    fake = Fake(lambda frame, query: answers[frame[0, 0, 0]][(int(query) + 1) % 3, frame[0, 0, 1]])
    figures = evaluate_clips(fake, clips, "davis17", rules=Rules(protocol=protocol))
    assert [figures["standard"][name] for name in FIGURES] == pytest.approx(expected, rel=0, abs=1e-15)


def test_a_list_of_pairs_is_scored_alone(tmp_path: Path) -> None:
    """The rule of MTTR: of A2D an instance by its id, of J-HMDB the frames that were drawn; empty truths count."""
    asked = [Query("1", "a dog", 1), Query("2", "a cat", 2)]
    truth = np.zeros((2, 6, 6), bool)
    truth[0, :3] = True
    clips = FakeClips({"v": asked, "w": asked}, {"v": [truth] * 4, "w": [truth] * 4})
    fake = Fake(lambda frame, query: np.ones((6, 6), bool))
    (tmp_path / "a2d.json").write_text('[["a dog", "v", 2, 1], ["a cat", "v", 3, 2], ["a dog", "v", 3, 1]]')
    figures = evaluate_clips(fake, clips, "a2d", rules=Rules(pairs=read_pairs(tmp_path / "a2d.json")))
    assert (figures["pairs"], figures["mean_iou"]) == (3, pytest.approx(1 / 3))
    assert list(figures["videos"]) == ["v"]
    (tmp_path / "jhmdb.json").write_text('[["w", "./jhmdb/Rename_Images/run/w/00004.png", "m", 40, "a dog"]]')
    figures = evaluate_clips(fake, clips, "jhmdb", rules=Rules(pairs=read_pairs(tmp_path / "jhmdb.json")))
    assert figures["pairs"] == 2
    with pytest.raises(UserError, match="--pairs lists what a2d and jhmdb score"):
        evaluate_clips(fake, clips, "davis16", rules=Rules(pairs={}))
    (tmp_path / "jhmdb.json").write_text("{}")
    with pytest.raises(UserError, match="none of the videos"):
        evaluate_clips(fake, clips, "jhmdb", rules=Rules(pairs=read_pairs(tmp_path / "jhmdb.json")))
    (tmp_path / "jhmdb.json").write_text("[1]")
    with pytest.raises(UserError, match="not a list of pairs"):
        read_pairs(tmp_path / "jhmdb.json")


def test_every_annotator_is_a_run_and_the_runs_are_averaged() -> None:
    ids = np.zeros((3, 8, 8), np.uint8)
    ids[:, :4, :4], ids[:, 4:, 4:] = 1, 2
    clips = davis17({"v": ids}, {"annot1/1": 1, "annot1/2": 2, "annot2/1": 1, "annot2/2": 2})
    good = Fake(lambda frame, query: ids[0] == int(query[-1]) if query.startswith("annot1") else nothing(frame, query))
    figures = evaluate_clips(good, clips, "davis17")
    assert good.asked == [["annot1/1", "annot1/2", "annot2/1", "annot2/2"]], "all in one pass"
    assert figures["sets"]["annot1"]["standard"]["j"] == 1.0
    assert figures["sets"]["annot2"]["standard"]["j"] == 0.0
    assert figures["standard"]["j"] == figures["binary"]["j"] == 0.5


def test_the_k_th_expressions_of_the_objects_are_a_set_where_no_key_names_an_annotator() -> None:
    ids = np.zeros((1, 8, 8), np.uint8)
    ids[0, :4], ids[0, 4:] = 1, 2
    clips = davis17({"v": ids}, {"0": 1, "1": 1, "2": 2})
    right = {"0": 1, "1": 1, "2": 2}
    figures = evaluate_clips(Fake(lambda frame, query: ids[0] == right[query]), clips, "davis17")
    assert list(figures["sets"]) == ["0", "1"]
    assert [list(run["binary"]) for run in figures["videos"]["v"]["sets"].values()] == [["1", "2"], ["1", "2"]], (
        "object 2 has one expression, which stands in both sets"
    )
    # Everything, for both: object 2 covers object 1 where no pixel may be in two objects.
    figures = evaluate_clips(Fake(lambda frame, query: np.ones((8, 8), bool)), clips, "davis17")
    assert (figures["standard"]["j"], figures["binary"]["j"]) == (0.25, 0.5)


def test_very_many_queries_are_asked_in_groups_that_keep_sets_together() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, (2, 12, 12)).astype(np.uint8)
    keys = {f"annot{set_}/{number}": number for set_ in range(1, 6) for number in range(1, 11)}
    clips = davis17({"v": ids}, keys)
    fake = Fake(lambda frame, query: ids[frame[0, 0, 1]] == keys[query])
    figures = evaluate_clips(fake, clips, "davis17")
    assert [len(asked) for asked in fake.asked] == [20, 20, 10]
    assert all(len({query.split("/")[0] for query in asked}) * 10 == len(asked) for asked in fake.asked)
    assert fake.resets == 3
    assert figures["standard"]["j"] == figures["binary"]["j"] == 1.0
    assert figures["videos"]["v"]["frames"] == 2


def boxes(count: int, *annotated: int) -> list[Masks | None]:
    """Frames of which some show one object, or with a negative index none, and the others have no annotation."""
    out: list[Masks | None] = [None] * count
    for index in annotated:
        out[abs(index)] = np.zeros((1, 6, 6), bool)
        out[abs(index)][0, :3] = index > 0  # type: ignore[index]
    return out


def test_few_annotated_frames_are_reached_with_the_frames_before_them() -> None:
    query = Query("1", "a cat eating", 1)
    clips = FakeClips({"v": [query]}, {"v": boxes(40, 5, 7, 20, 39)})
    top = np.zeros((6, 6), bool)
    top[:2] = True
    fake = Fake(lambda frame, query: top)
    figures = evaluate_clips(fake, clips, "a2d")
    assert [index for _, index in fake.seen] == [*range(2, 8), *range(17, 21), *range(36, 40)]
    assert fake.resets == 3, "after a gap the video starts anew"
    assert figures["pairs"] == 4
    assert figures["overall_iou"] == figures["mean_iou"] == pytest.approx(2 / 3)
    assert (figures["precision@0.6"], figures["precision@0.7"]) == (1.0, 0.0)
    assert figures["videos"]["v"] == {"pairs": 4, "mean_iou": pytest.approx(2 / 3)}


def test_an_object_missing_from_an_annotated_frame_makes_no_pair() -> None:
    clips = FakeClips({"v": [Query("1", "a dog", 1)]}, {"v": boxes(4, 1, -2, 3)})
    figures = evaluate_clips(Fake(lambda frame, query: np.ones((6, 6), bool)), clips, "jhmdb")
    assert (figures["pairs"], figures["mean_iou"]) == (2, 0.5)


def test_one_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    queries = [Query("7/0", "left man", 7), Query("7/1", "man in red", 7)]
    truth = np.ones((2, 5, 5), bool)
    clips = FakeClips({"31": queries, "32": queries[:1]}, {"31": [truth], "32": [truth[:1]]})
    rules = Rules(masks=MaskFolder(tmp_path))
    figures = evaluate_clips(Fake(lambda frame, query: truth[0]), clips, "refcoco", rules=rules)
    assert (figures["pairs"], figures["overall_iou"], figures["precision@0.9"]) == (3, 1.0, 1.0)
    assert (tmp_path / "Annotations/31/7/1/00000.png").is_file()


def test_youtube_vos_counts_every_expression_and_needs_no_annotation_to_write_masks(tmp_path: Path) -> None:
    half, whole = boxes(3, 1), [np.ones((2, 6, 6), bool)] * 3
    clips = FakeClips(
        {"a": [Query("0", "x", 1)], "b": [Query("0", "x", 1), Query("1", "y", 2)]}, {"a": half, "b": whole}
    )
    figures = evaluate_clips(Fake(lambda frame, query: np.ones((6, 6), bool)), clips, "youtube-vos")
    assert figures["j"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert "shuffled_j" not in figures

    class Hidden(FakeClips):
        def annotated(self, video: str) -> list[int]:
            return []

    hidden = Hidden(clips.asked, clips.truth)
    with pytest.raises(UserError, match=r"no annotations.*--masks"):
        evaluate_clips(Fake(nothing), hidden, "youtube-vos")
    figures = evaluate_clips(Fake(nothing), hidden, "youtube-vos", rules=Rules(masks=MaskFolder(tmp_path)))
    assert figures["j"] is None
    assert len(list(tmp_path.glob("Annotations/b/1/*.png"))) == 3


def davis16(*videos: str, frames: int = 7) -> FakeClips:
    asked = {video: [Query("0", f"the {video}", None), Query("1", f"a {video}", None)] for video in videos}
    truth = np.zeros((2, 6, 6), bool)
    truth[:, :3] = True
    return FakeClips(asked, {video: [truth] * frames for video in videos})


def test_davis16_asks_the_next_videos_sentence_along(tmp_path: Path) -> None:
    clips = davis16("dog", "car")
    top = np.zeros((6, 6), bool)
    top[:3] = True
    fake = Fake(lambda frame, query: top if query.endswith("dog") else ~top)
    figures = evaluate_clips(fake, clips, "davis16", rules=Rules(every=3, masks=MaskFolder(tmp_path)))
    assert fake.asked == [["the dog", "a dog", "the car"], ["the car", "a car", "the dog"]]
    assert (fake.resets, fake.frames) == (2, 14), "all frames are seen"
    assert clips.read == [(video, index) for video in ("dog", "car") for index in (0, 3, 6)], "few are scored"
    dog, car = figures["videos"]["dog"], figures["videos"]["car"]
    assert (dog["j"], dog["f"], car["j"], dog["frames"]) == (1.0, 1.0, 0.0, 3)
    assert dog["expressions"]["1"]["expression"] == "a dog"
    assert dog["shuffled"] == {"sentence": "the car", "j": 0.0, "foreground": 0.5, "absent": True}
    assert (figures["shuffled_j"], figures["absent_foreground"], figures["j"]) == (0.5, 0.5, 0.5)
    assert sorted(path.name for path in (tmp_path / "Annotations/dog").iterdir()) == ["0", "1"], "none of the foreign"


def test_drift_is_the_last_sixth_of_a_video_less_the_first() -> None:
    truth = np.ones((1, 6, 6), bool)
    scorer = RegionScorer([Query("0", "a dog", 1)])
    for index in range(12):
        answer = truth.copy()
        answer[:, :3] = index not in (0, 11)  # half of the object is found on the first frame and on the last
        answer[:, :1] = index != 11
        scorer.add(0, truth, answer)
    assert scorer.row()["drift"] == pytest.approx(-1 / 12)


def test_frames_that_are_shown_are_not_scored() -> None:
    """One object is in view on frame 1 alone, which is shown; the other is never shown and keeps its sentence."""
    asked = [Query("0", "a dog", None), Query("1", "a cat", None)]
    truth: list[Masks | None] = [np.zeros((2, 8, 8), bool) for _ in range(6)]
    for index in range(6):
        truth[index][0, :4] = True  # type: ignore[index]
    truth[0][1, 4:] = True  # type: ignore[index]
    clips = FakeClips({"v": asked}, {"v": truth})
    fake = Fake(lambda frame, query: clips.truth["v"][frame[0, 0, 1]][int("cat" in query)])  # type: ignore[index]
    figures = evaluate_clips(fake, clips, "youtube-vos", rules=Rules(teach=2))
    assert fake.shown == [[1, 4]], "evenly spread"
    assert fake.before == [[0, 3]]
    assert [query for row in fake.asked for query in row] == ["taught a dog", "a cat"]
    assert figures["teach"] == 2
    assert figures["videos"]["v"]["frames"] == 4
    figures = evaluate_clips(fake, clips, "youtube-vos", rules=Rules(every=2, teach=2))
    assert fake.shown[-1] == [1, 5], "frames that are not scored"
    assert figures["videos"]["v"]["frames"] == 3
    with pytest.raises(UserError, match="--teach must not be negative"):
        evaluate_clips(fake, clips, "youtube-vos", rules=Rules(teach=-1))


def test_an_expression_may_be_a_taught_query(tmp_path: Path) -> None:
    path = tmp_path / "Rex.query"
    TaughtQuery("a dog", {"lang1": np.zeros(2, np.float32)}, "network", name="Rex").save(path)
    clips = FakeClips({"v": [Query("0", tidy(f"@{path}"), None)]}, {"v": [np.ones((1, 8, 8), bool)]})
    fake = Fake(lambda frame, query: np.ones((8, 8), bool))
    assert evaluate_clips(fake, clips, "youtube-vos")["j"] == 1
    assert [query.label for query in fake.asked[0]] == ["Rex"]


def test_an_interrupted_evaluation_goes_on_after_its_last_video_and_ends_alike(tmp_path: Path) -> None:
    clips = davis16("dog", "car", "cat")
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 2, (3, 7, 6, 6)).astype(bool)

    def answer(frame: NDArray[np.uint8], query: str) -> Masks:
        return answers[frame[0, 0, 0], frame[0, 0, 1]]

    whole = evaluate_clips(Fake(answer), clips, "davis16")
    path = tmp_path / "out.partial.jsonl"

    def fails(frame: NDArray[np.uint8], query: str) -> Masks:
        if frame[0, 0, 0] == 1 and frame[0, 0, 1] == 4:
            raise KeyboardInterrupt
        return answer(frame, query)

    rules = Rules(masks=MaskFolder(tmp_path / "masks"))
    with pytest.raises(KeyboardInterrupt):
        evaluate_clips(Fake(fails), clips, "davis16", rules=rules, ledger=Ledger(path, {"model": "m"}))
    assert [folder.name for folder in (tmp_path / "masks/Annotations").iterdir()] == ["dog"], "nothing half-written"
    second = Fake(answer)
    figures = evaluate_clips(second, clips, "davis16", rules=rules, ledger=Ledger(path, {"model": "m"}))
    assert {video for video, _ in second.seen} == {1, 2}
    assert figures == whole
    assert len(list((tmp_path / "masks/Annotations").glob("*/*/*.png"))) == 3 * 2 * 7


def test_options_that_do_not_fit_are_named() -> None:
    clips = davis16("dog")
    for dataset, rules, message in (
        ("davis16", Rules(every=0), "--every must be at least 1"),
        ("davis16", Rules(protocol="supervised"), "supervised.*every-frame, semi-supervised, unsupervised"),
        ("a2d", Rules(every=2), "leave them out"),
        ("refcoco", Rules(protocol="semi-supervised"), "leave them out"),
        ("davis16", Rules(protocol="unsupervised"), "davis17 alone has"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_clips(Fake(nothing), clips, dataset, rules=rules)
