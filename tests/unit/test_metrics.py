"""The figures against values worked out by hand, against scikit-learn, and by simulation."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from vizsla import metrics

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2, 1])


def draw(seed: int, n: int, num_classes: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, n)
    other = (truth + rng.integers(1, num_classes, n)) % num_classes
    return truth, np.where(rng.random(n) < right, truth, other)


def test_confusion_has_true_rows_and_predicted_columns() -> None:
    matrix = metrics.confusion(TRUTH, PREDICTED, 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[3, 1, 0, 0], [1, 2, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]]
    cells = metrics.confusion_cells(TRUTH, PREDICTED, 4)
    assert [tuple(map(int, cell)) for cell in zip(*cells, strict=True)] == [
        (0, 0, 3),
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 2),
        (2, 1, 1),
        (2, 2, 2),
    ]


def test_figures_by_hand() -> None:
    assert metrics.accuracy(TRUTH, PREDICTED) == 0.7
    found = metrics.per_class(TRUTH, PREDICTED, 3)
    assert found.precision.tolist() == [3 / 4, 2 / 4, 1.0]
    assert found.recall.tolist() == [3 / 4, 2 / 3, 2 / 3]
    assert found.f1.tolist() == pytest.approx([6 / 8, 4 / 7, 4 / 5])
    assert found.support.tolist() == [4, 3, 3]
    assert metrics.balanced_accuracy(TRUTH, PREDICTED, 3) == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    assert metrics.macro_f1(TRUTH, PREDICTED, 3) == pytest.approx((6 / 8 + 4 / 7 + 4 / 5) / 3)


def test_what_is_not_defined_is_nan_and_left_out_of_means() -> None:
    truth, predicted = np.array([0, 0, 1]), np.array([0, 0, 3])
    found = metrics.per_class(truth, predicted, 5)
    assert np.isnan(found.precision).tolist() == [False, True, True, False, True]
    assert np.isnan(found.recall).tolist() == [False, False, True, True, True]
    assert np.isnan(found.f1).tolist() == [False, False, True, False, True]
    assert metrics.balanced_accuracy(truth, predicted, 5) == 0.5
    assert metrics.macro_f1(truth, predicted, 5) == pytest.approx(1 / 3)


def test_no_pictures_is_nan_not_zero() -> None:
    none = np.array([], dtype=np.int64)
    figures = [
        metrics.accuracy(none, none),
        metrics.balanced_accuracy(none, none, 3),
        metrics.macro_f1(none, none, 3),
        metrics.expected_calibration_error(np.empty(0), np.empty(0, dtype=bool)),
        metrics.wilson(0, 0).value,
    ]
    assert all(math.isnan(figure) for figure in figures)


def test_top_k_clips_and_breaks_ties_by_position() -> None:
    probabilities = np.array([[0.1, 0.6, 0.3], [0.4, 0.3, 0.3]])
    assert metrics.top_k(probabilities, 2).tolist() == [[1, 2], [0, 1]]
    assert metrics.top_k(probabilities, 9).tolist() == [[1, 2, 0], [0, 1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, predicted = draw(seed, 200, 7, 0.6)
    found = metrics.per_class(truth, predicted, 7)
    expected = sklearn.precision_recall_fscore_support(truth, predicted, labels=range(7), zero_division=np.nan)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    by_class = metrics.class_intervals(truth, predicted, 7)
    for name, theirs in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        np.testing.assert_allclose([getattr(one, name).value for one in by_class], theirs)
    assert metrics.confusion(truth, predicted, 7).tolist() == sklearn.confusion_matrix(truth, predicted).tolist()
    assert metrics.balanced_accuracy(truth, predicted, 7) == pytest.approx(
        sklearn.balanced_accuracy_score(truth, predicted)
    )
    assert metrics.macro_f1(truth, predicted, 7) == pytest.approx(sklearn.f1_score(truth, predicted, average="macro"))
    scores = np.random.default_rng(seed).random(200).round(1)
    area = metrics.auc(scores, truth > 3)
    assert area is not None
    assert area.value == pytest.approx(sklearn.roc_auc_score(truth > 3, scores))


def test_wilson_by_hand() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    found = metrics.wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    found = metrics.wilson(0, 20)
    assert (found.low, round(found.high, 4)) == (0.0, 0.1611)
    assert metrics.wilson(20, 20).high == 1.0


@pytest.mark.parametrize(("p", "n"), [(0.5, 20), (0.9, 50), (0.97, 200)])
def test_wilson_covers_what_it_says(p: float, n: int) -> None:
    draws = np.random.default_rng(0).binomial(n, p, 2000)
    covered = [interval.low <= p <= interval.high for interval in (metrics.wilson(int(k), n) for k in draws)]
    assert 0.92 < np.mean(covered) < 0.985


def test_figures_of_a_class_that_are_not_defined_are_none() -> None:
    found = metrics.class_intervals(np.array([0, 0, 1]), np.array([0, 0, 3]), 5)
    assert [one.support for one in found] == [2, 1, 0, 0, 0]
    assert [one.precision is None for one in found] == [False, True, True, False, True]
    assert [one.recall is None for one in found] == [False, False, True, True, True]
    assert [one.f1 is None for one in found] == [False, False, True, False, True]
    assert found[0].f1
    assert (found[0].f1.value, found[0].f1.high) == (1.0, 1.0)
    assert found[0].f1.low < 0.6, "two pictures are no proof"


def test_the_interval_of_f1_by_hand() -> None:
    # 3 hits, 1 missed and 1 called wrongly: 3 of 5, of which Wilson's interval is 0.2307 to 0.8824.
    found = metrics.f1_interval(3, 4, 4)
    assert (found.value, found.num_pictures) == (pytest.approx(0.75), 5)
    assert (found.low, found.high) == pytest.approx((2 * 0.2307 / 1.2307, 2 * 0.8824 / 1.8824), abs=1e-4)
    # Where a class is called twice as often as it is, precision and recall have intervals of their own.
    (one, _) = metrics.class_intervals(np.array([0] * 4 + [1] * 8), np.array([0] * 3 + [1] + [0] * 5 + [1] * 3), 2)
    assert one.precision == metrics.wilson(3, 8)
    assert one.recall == metrics.wilson(3, 4)
    assert one.f1 == metrics.f1_interval(3, 4, 8)


@pytest.mark.parametrize(("n", "right"), [(60, 0.5), (400, 0.9)])
def test_intervals_of_classes_cover_what_they_say(n: int, right: float) -> None:
    # Each of four classes is as often called wrongly as it is missed, so all three figures are the share that is right.
    covered = []
    for seed in range(400):
        one = metrics.class_intervals(*draw(seed, n, 4, right), 4)[0]
        covered.append([i is not None and i.low <= right <= i.high for i in (one.precision, one.recall, one.f1)])
    assert (np.mean(covered, axis=0) > 0.92).all()
    assert (np.mean(covered, axis=0) < 0.975).all()


@pytest.mark.parametrize(("num_classes", "n", "right"), [(2, 100, 0.8), (50, 1000, 0.8)])
def test_bootstrap_covers_what_it_says(num_classes: int, n: int, right: float) -> None:
    # The errors are spread evenly, so the true macro F1 is the accuracy, as is the true balanced accuracy.
    covered = []
    for seed in range(150):
        found = metrics.balanced_intervals(*draw(seed, n, num_classes, right), num_classes, num_resamples=200)
        covered.append([interval.low <= right <= interval.high for interval in found])
    assert (np.mean(covered, axis=0) > 0.89).all()


def test_bootstrap_is_seeded_and_holds_the_value() -> None:
    truth, predicted = draw(1, 300, 10, 0.7)
    one, two = (metrics.balanced_intervals(truth, predicted, 10) for _ in range(2))
    assert one == two
    assert one != metrics.balanced_intervals(truth, predicted, 10, seed=1)
    for interval in one:
        assert 0 < interval.low < interval.value < interval.high < 1
        assert interval.num_pictures == 300
    assert one.balanced_accuracy.value == metrics.balanced_accuracy(truth, predicted, 10)


def test_all_right_on_few_pictures_is_not_certainty() -> None:
    truth = np.array([0] * 95 + [1] * 5)
    for interval in metrics.balanced_intervals(truth, truth, 2):
        assert interval.high == 1
        # 95 pictures of one class and 5 of the other weigh as much as 19 in balance.
        assert interval.low == pytest.approx(metrics.wilson(19, 19).low)
    area = metrics.auc(truth.astype(float), truth == 1)
    assert area is not None
    assert area.low == metrics.wilson(5, 5).low


def test_a_class_that_is_always_wrong_has_an_interval_too() -> None:
    truth = np.array([0] * 500 + [1] * 500)
    found = metrics.balanced_intervals(truth, np.zeros(1000, dtype=np.int64), 2).balanced_accuracy
    assert found.value == 0.5
    assert found.low < 0.48


def test_many_classes_need_no_square_array() -> None:
    truth, predicted = draw(0, 50_000, 1000, 0.75)
    tracemalloc.start()
    metrics.balanced_intervals(truth, predicted, 1000, num_resamples=20)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1000 * 1000 * 4


def test_calibration_error_by_hand() -> None:
    # Bins (13/15, 14/15] and (8/15, 9/15]: 0.9 stated and 1 of 2 right; 0.6 stated and all right.
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    correct = np.array([True, False, True, True])
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    sure = metrics.expected_calibration_error(np.ones(3, dtype=np.float32), np.ones(3, dtype=bool))
    assert sure == 0


def test_auc_by_hand() -> None:
    # Pairs of a positive and a negative: 0.8 beats both, 0.4 beats 0.1 and ties with 0.4.
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    area = metrics.auc(scores, positive)
    assert area is not None
    assert area.value == 3.5 / 4
    assert metrics.auc(scores, np.ones(4, dtype=bool)) is None


def test_delong_covers_what_it_says() -> None:
    rng, true = np.random.default_rng(0), 0.7602  # two normals one deviation apart: the normal CDF at 1 / sqrt(2)
    covered = []
    for _ in range(400):
        scores = np.concatenate([rng.normal(0, 1, 60), rng.normal(1, 1, 40)])
        area = metrics.auc(scores, np.arange(100) >= 60)
        assert area is not None
        covered.append(area.low <= true <= area.high)
    assert 0.92 < np.mean(covered) < 0.985


@pytest.mark.parametrize("seed", range(10))
def test_properties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_classes, n = int(rng.integers(2, 30)), int(rng.integers(1, 200))
    truth, predicted = rng.integers(0, num_classes, n), rng.integers(0, num_classes, n)
    matrix = metrics.confusion(truth, predicted, num_classes)
    assert matrix.sum() == n
    assert metrics.accuracy(truth, predicted) == pytest.approx(np.trace(matrix) / n)
    order = rng.permutation(n)
    assert metrics.macro_f1(truth, predicted, num_classes) == metrics.macro_f1(
        truth[order], predicted[order], num_classes
    )
    for figure in metrics.per_class(truth, predicted, num_classes)[:3]:
        defined = figure[~np.isnan(figure)]
        assert ((defined >= 0) & (defined <= 1)).all()
    for interval in metrics.balanced_intervals(truth, predicted, num_classes, num_resamples=50):
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
    scores = rng.random(n)
    area, opposite = metrics.auc(scores, truth == 0), metrics.auc(-scores, truth == 0)
    if area and opposite:
        assert area.value + opposite.value == pytest.approx(1)
        assert area.low <= area.value <= area.high


def _lttb(x: np.ndarray, y: np.ndarray, num: int) -> list[int]:
    """As in Steinarsson's thesis, but for the mean of x: the middle, which is the same where steps are even."""
    every, found, last = (len(x) - 2) / (num - 2), [0], 0
    for i in range(num - 2):
        begin, end = int(every * i) + 1, int(every * (i + 1)) + 1
        following = slice(end, min(int(every * (i + 2)) + 1, len(x)))
        mean_x, mean_y = (x[following][0] + x[following][-1]) / 2, y[following].mean()
        areas = np.abs((x[last] - mean_x) * (y[begin:end] - y[last]) - (x[last] - x[begin:end]) * (mean_y - y[last]))
        last = begin + int(areas.argmax())
        found.append(last)
    return [*found, len(x) - 1]


@pytest.mark.parametrize("num", [3, 10, 37, 500])
def test_a_downsampled_curve_is_that_of_the_reference(num: int) -> None:
    random = np.random.default_rng(num)
    x = np.cumsum(random.integers(1, 5, 5000)).astype(np.float64)
    y = np.exp(-x / 5000) + 0.1 * random.standard_normal(5000)
    assert metrics.downsample(x, y, num).tolist() == _lttb(x, y, num)


def test_a_downsampled_curve_keeps_its_ends_and_its_extremes() -> None:
    x = np.arange(50_000, dtype=np.float64)
    y = np.sin(x / 3000)
    y[[123, 31_234]] = 50, -50
    chosen = metrics.downsample(x, y, 300)
    assert len(chosen) == 300
    assert (np.diff(chosen) > 0).all()
    assert {0, 123, 31_234, 49_999} <= set(chosen.tolist())


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
def test_a_short_curve_stays_as_it_is(length: int) -> None:
    x = np.arange(length, dtype=np.float64)
    assert metrics.downsample(x, x, max(3, length)).tolist() == list(range(length))
