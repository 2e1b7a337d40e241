"""evaluate() on predictors whose answers are known: exact figures, whole files, refusals, and a safe page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vizsla import files
from vizsla.errors import InvalidInput
from vizsla.evaluation import html, predictions
from vizsla.evaluation.evaluate import About, Rows, evaluate
from vizsla.evaluation.report import DatasetRef, Report, SplitRole, Subject, read_report

Predict = Callable[[np.ndarray], np.ndarray]


def about(role: SplitRole = "held out", name: str = "lenet", split: str = "test") -> About:
    return About(
        id="e1",
        name=f"{name}-test",
        subject=Subject(kind="run", id="r1", name=name, checkpoint="best", network="lenet"),
        dataset=DatasetRef(id="d1", name="digits", fingerprint="0123456789abcdef" * 4),
        split=split,
        role=role,
        device="cpu",
    )


def read_pixels(indices: np.ndarray) -> np.ndarray:
    """Pictures of 8 x 8 in which every pixel is the row's number."""
    return np.broadcast_to(indices[:, None, None, None], (len(indices), 8, 8, 3)).astype(np.uint8)


def answers(predicted: list[int], num_classes: int, confidence: float = 0.8) -> Predict:
    """A predictor that answers `predicted[row]` with `confidence`, for the pictures of `read_pixels`."""

    def predict(pixels: np.ndarray) -> np.ndarray:
        said = np.array(predicted)[pixels[:, 0, 0, 0]]
        probabilities = np.full((len(pixels), num_classes), (1 - confidence) / (num_classes - 1), dtype=np.float32)
        probabilities[np.arange(len(pixels)), said] = confidence
        return probabilities

    return predict


def rows(truth: list[int]) -> Rows:
    return Rows(np.arange(len(truth)), np.array(truth, dtype=np.int64), [f"some/{i}.png" for i in range(len(truth))])


TRUTH = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 1, 0, 2, 2, 1]
LABELS = ["cat", "dog", "fox"]


def run(folder: Path, **changes: object) -> Report:
    arguments = {
        "predict": answers(PREDICTED, 3),
        "read_pixels": read_pixels,
        "rows": rows(TRUTH),
        "labels": LABELS,
        "about": about(),
        "folder": folder,
        "batch_size": 4,
    }
    return evaluate(**(arguments | changes))  # type: ignore[arg-type]


def test_figures_are_exact_and_the_report_is_read_back(tmp_path: Path) -> None:
    report = run(tmp_path)
    assert read_report(tmp_path) == report
    assert report.headline["accuracy"].value == 0.7
    assert list(report.headline) == ["accuracy", "balanced_accuracy", "macro_f1"]
    assert report.headline["balanced_accuracy"].value == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    assert report.calibration_error == pytest.approx(0.1)
    first, second, _ = report.per_class
    assert first.precision
    assert (first.precision.value, first.precision.num_pictures) == (3 / 4, 4)
    assert second.recall
    assert (second.support, second.recall.value, second.recall.num_pictures) == (3, 2 / 3, 3)
    assert second.f1
    assert (second.f1.value, second.f1.num_pictures) == (pytest.approx(4 / 7), 5), "either of the class or called it"
    for one in report.per_class:
        for figure in (one.precision, one.recall, one.f1):
            assert figure
            assert 0 < figure.low < figure.value <= figure.high <= 1
    assert [tuple(cell) for cell in report.confusion] == [
        (0, 0, 3),
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 2),
        (2, 1, 1),
        (2, 2, 2),
    ]
    assert [(one.index, one.true, one.predicted) for one in report.mistakes] == [(3, 0, 1), (6, 1, 0), (9, 2, 1)]
    assert report.mistakes[0].path == "some/3.png"
    assert not list(tmp_path.glob(".*"))


def test_predictions_hold_a_row_a_picture(tmp_path: Path) -> None:
    run(tmp_path)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.num_rows == 10
    row = table.slice(3, 1).to_pylist()[0]
    assert row["index"] == 3
    assert (row["path"], row["label"], row["predicted"]) == ("some/3.png", "cat", "dog")
    assert row["probability"] == pytest.approx(0.8)
    assert row["top_labels"] == ["dog", "cat", "fox"]
    assert row["top_probabilities"] == pytest.approx([0.8, 0.1, 0.1])
    assert row["probabilities"] == pytest.approx([0.1, 0.8, 0.1])
    assert json.loads(table.schema.metadata[b"vizsla"])["labels"] == LABELS


def test_the_figures_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    reports = [run(tmp_path / str(size), batch_size=size) for size in (1, 3, 64)]
    same = {report.model_copy(update={"seconds": 0, "created_at": ""}).model_dump_json() for report in reports}
    assert len(same) == 1


def test_two_classes_have_an_auc(tmp_path: Path) -> None:
    report = run(tmp_path, predict=answers([0, 1, 1, 0], 2), rows=rows([0, 0, 1, 1]), labels=["benign", "malignant"])
    assert report.headline["auc"].value == 0.5
    assert "top5" not in report.headline


def test_more_than_five_classes_have_a_top_5(tmp_path: Path) -> None:
    labels = list("abcdef")
    report = run(tmp_path, predict=answers([1, 1, 0], 6), rows=rows([1, 5, 4]), labels=labels)
    # Equal probabilities are ordered by position, so class 5 comes sixth and class 4 fifth.
    assert report.headline["top5"].value == pytest.approx(2 / 3)


def test_progress_counts_pictures(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_a_failure_in_the_middle_leaves_no_report(tmp_path: Path) -> None:
    run(tmp_path)

    def stop(done: int, total: int) -> None:
        if done > 4:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        run(tmp_path, progress=stop)
    assert not (tmp_path / "report.json").exists()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(InvalidInput, match="no finished evaluation"):
        read_report(tmp_path)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no pictures"):
        run(tmp_path / "e", rows=rows([]))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.full((4, 2), 0.5), r"shape \(4, 2\)"),
        (np.full((4, 3), np.nan), "not finite"),
        (np.full((4, 3), 0.5), "sum to 1.5"),
        (np.tile([1.5, -0.5, 0.0], (4, 1)), "negative"),
    ],
)
def test_what_is_not_probabilities_is_refused(tmp_path: Path, wrong: np.ndarray, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"The model gives .*{said}"):
        run(tmp_path, predict=lambda pixels: wrong)
    assert not list(tmp_path.iterdir())


def test_warnings_in_plain_words(tmp_path: Path) -> None:
    report = run(tmp_path, about=about("chose the checkpoint"), labels=[*LABELS, "owl"], predict=answers(PREDICTED, 4))
    said = " ".join(report.warnings)
    assert "also used to choose the checkpoint" in said
    assert "only 10 pictures" in said
    assert "1 class has no pictures in this split" in said
    assert "“owl”" in said
    assert "3 classes have fewer than 10 pictures" in said
    truth = [0] * 90 + [1] * 10
    said = " ".join(run(tmp_path, rows=rows(truth), labels=["a", "b"], predict=answers([0] * 100, 2)).warnings)
    assert "Always answering “a” would be right for 90.0%" in said
    assert "trained on" not in said
    said = " ".join(run(tmp_path, about=about("trained on", split="train")).warnings)
    assert "learned from the pictures of the train split" in said


def test_enough_pictures_give_no_warning(tmp_path: Path) -> None:
    truth = [0, 1] * 120
    report = run(tmp_path, rows=rows(truth), labels=["a", "b"], predict=answers(truth, 2))
    assert report.warnings == []
    assert "Not a single mistake" in (tmp_path / "report.html").read_text()


def test_another_format_and_damage_are_refused(tmp_path: Path) -> None:
    run(tmp_path)
    content = files.read_json(tmp_path / "report.json")
    files.write_json(tmp_path / "report.json", content | {"num_pictures": "many"})
    with pytest.raises(InvalidInput, match="damaged: num_pictures"):
        read_report(tmp_path)
    files.write_json(tmp_path / "report.json", content | {"format": "vizsla.evaluation/9"})
    with pytest.raises(InvalidInput, match="evaluation/9"):
        read_report(tmp_path)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    labels = ["<script>alert(1)</script>", '" onload="alert(1)', "x" * 200, "\u202etxt", " ", "{{ 7 * 7 }}"]
    truth = [0, 1, 2, 3, 4, 5]
    run(
        tmp_path,
        rows=Rows(np.arange(6), np.array(truth), ["</style><script>alert(2)</script>"] * 6),
        labels=labels,
        predict=answers([1, 2, 3, 4, 5, 0], 6),
        about=about(name="<img src=x onerror=alert(3)>", split="<b>"),
    )
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert '" onload="' not in page
    assert "<bdi>&lt;b&gt;</bdi>" in page
    assert "{{ 7 * 7 }}" in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    page = (tmp_path / "report.html").read_text()
    report = read_report(tmp_path)
    assert f"<code>{report.id}</code>" in page
    assert f"<bdi>{report.name}</bdi>" not in page, "it may be renamed"
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page)
    assert set(re.findall(r'(?:src|href)="([a-z/]+)', page)) == {"data"}
    assert page.count("data:image/png;base64") == 3


def test_a_thousand_classes_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (60, 224, 224, 3), dtype=np.uint8)
    truth = rng.integers(0, 995, 4000)
    said = np.where(rng.random(4000) < 0.7, truth, (truth + 1) % 1000)
    given = iter(range(0, 4000, 500))

    def predict(pixels: np.ndarray) -> np.ndarray:
        start = next(given)
        return np.eye(1000, dtype=np.float32)[said[start : start + 500]]

    # Soft pictures, as photographs are: noise of 224 px would not compress at all.
    soft = noise.repeat(8, axis=1).repeat(8, axis=2)[:, :224, :224]
    report = run(
        tmp_path,
        predict=predict,
        read_pixels=lambda indices: soft[indices % 60],
        rows=rows(truth.tolist()),
        labels=[f"n{i:08d} some species" for i in range(1000)],
        batch_size=500,
    )
    assert (tmp_path / "report.html").stat().st_size < 1_500_000
    assert len(report.mistakes) == 48
    assert "probabilities" not in pq.read_schema(tmp_path / "predictions.parquet").names
    page = (tmp_path / "report.html").read_text()
    assert "The 25 classes with the most errors, of 1,000." in page


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (1, "100%"), (0.99999, ">99.9%"), (0.0001, "<0.1%"), (0.8549, "85.5%")]
)
def test_percent_never_rounds_to_all_or_none(share: float, text: str) -> None:
    assert html.percent(share) == text


def test_the_surest_answers_come_first(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "predictions.parquet"
    every = predictions.read(path).rows
    first = predictions.read(path, surest=True, limit=4)
    rest = predictions.read(path, surest=True, after=first.next or 0)
    assert rest.next is None
    assert [*first.rows, *rest.rows] == sorted(every, key=lambda row: -row["probability"])
    wrong = predictions.read(path, surest=True, wrong=True, label="cat").rows
    assert [row["index"] for row in wrong] == [
        row["index"] for row in every if row["label"] == "cat" != row["predicted"]
    ]
    assert predictions.read(path, surest=True, label="fox", predicted="none") == ([], None)


def test_each_class_has_what_was_most_surely_taken_for_it(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "predictions.parquet"
    every = predictions.read(path).rows
    for top in predictions.tops(path, [*LABELS, "unknown"], 2):
        mine = sorted((row for row in every if row["predicted"] == top.label), key=lambda row: -row["probability"])
        assert (top.num_pictures, top.rows) == (len(mine), mine[:2])
    assert predictions.tops(path, [], 2) == []
