"""How good a classifier is, as pure functions of arrays: figures, and intervals that say how far to trust them.

`truth` and `predicted` are integer class positions, `probabilities` is (n, K). A figure that is not defined, such as
the recall of a class without pictures, is NaN here and `None` in files; means leave it out, they never count it as 0.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


class Interval(NamedTuple):
    """A figure between 0 and 1, and the range in which the true one lies with confidence `level`."""

    value: float
    low: float
    high: float
    level: float
    num_pictures: int
    method: str


class PerClass(NamedTuple):
    """Figures of each class, arrays of K. NaN: precision of a class never predicted, recall of one without pictures."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


class ClassIntervals(NamedTuple):
    """The figures of one class, of which one that is not defined is None; `support` is its number of pictures."""

    support: int
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None


class Cells(NamedTuple):
    """The cells of a confusion matrix that are not 0, ordered by true class, then predicted class."""

    true: Ints
    predicted: Ints
    num_pictures: Ints


class BalancedIntervals(NamedTuple):
    """The two figures in which every class weighs the same."""

    balanced_accuracy: Interval
    macro_f1: Interval


def confusion(truth: Ints, predicted: Ints, num_classes: int) -> Ints:
    """The confusion matrix, (K, K) int64: rows are true classes, columns predicted ones."""
    flat = np.bincount(truth * num_classes + predicted, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def confusion_cells(truth: Ints, predicted: Ints, num_classes: int) -> Cells:
    """The confusion matrix as the cells that are not 0, so that 20,000 classes need no 20,000 x 20,000 array."""
    keys, counts = np.unique(truth * num_classes + predicted, return_counts=True)
    return Cells(keys // num_classes, keys % num_classes, counts.astype(np.int64))


def accuracy(truth: Ints, predicted: Ints) -> float:
    """The share of pictures that are right; NaN without pictures."""
    return float(np.mean(truth == predicted)) if len(truth) else math.nan


def top_k(probabilities: AnyFloats, k: int) -> Ints:
    """The `k` most probable classes of each row, best first, (n, min(k, K)). Of equal ones the lower position wins."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k].astype(np.int64)


def per_class(truth: Ints, predicted: Ints, num_classes: int) -> PerClass:
    """Precision, recall, F1 and support of each class.

    F1 is NaN only for a class that neither occurs nor is predicted; with no hit it is 0.
    """
    return _figures(confusion_cells(truth, predicted, num_classes), num_classes)


def class_intervals(truth: Ints, predicted: Ints, num_classes: int, level: float = 0.95) -> list[ClassIntervals]:
    """Precision, recall and F1 of each class with their intervals, in the order of the classes.

    That of precision is given how many pictures were taken for the class.
    """
    counts = _counts(confusion_cells(truth, predicted, num_classes), num_classes)
    return [
        ClassIntervals(
            support,
            wilson(hits, claimed, level) if claimed else None,
            wilson(hits, support, level) if support else None,
            f1_interval(hits, support, claimed, level) if support + claimed else None,
        )
        for hits, support, claimed in zip(*(each.tolist() for each in counts), strict=True)
    ]


def balanced_accuracy(truth: Ints, predicted: Ints, num_classes: int) -> float:
    """The mean recall over the classes that occur; NaN without pictures."""
    return _mean_of_defined(per_class(truth, predicted, num_classes).recall)


def macro_f1(truth: Ints, predicted: Ints, num_classes: int) -> float:
    """The mean F1 over the classes that occur or are predicted, as scikit-learn's `f1_score(average="macro")`."""
    return _mean_of_defined(per_class(truth, predicted, num_classes).f1)


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """The interval of a proportion; with `n` 0 the value is NaN and the interval is everything.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, level, 0, "Wilson score")
    z, p = _z(level), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the formula gives exactly 0 and 1; rounding must not move them past the value.
    low, high = max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))
    return Interval(p, low, high, level, round(n), "Wilson score")


def f1_interval(hits: int, support: int, claimed: int, level: float = 0.95) -> Interval:
    """The interval of the F1 of one class: `hits` of its `support` pictures were found, `claimed` were taken for it.

    Of the pictures that are of the class or were taken for it, the hits are a proportion J, the Jaccard index. F1 is
    2 J / (1 + J), which rises with J, so the bounds of J give those of F1.

    Source: Lam, Gopal and Qian (2023), "Confidence intervals for the F1 score: a comparison of four methods", where
    it is called Wilson indirect.
    """
    overlap = wilson(hits, support + claimed - hits, level)
    value, low, high = (2 * j / (1 + j) for j in (overlap.value, overlap.low, overlap.high))
    return overlap._replace(value=value, low=low, high=high, method="Wilson score of the Jaccard index")


def balanced_intervals(
    truth: Ints, predicted: Ints, num_classes: int, *, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> BalancedIntervals:
    """Balanced accuracy and macro F1 with bootstrap intervals over the pictures; needs at least one picture.

    Drawing n pictures with replacement is one multinomial draw over the cells of the confusion matrix that occur, so
    the cost of a resample does not grow with the number of pictures. The interval is the standard error of the
    resamples on the logit scale: their percentiles would lie too low for macro F1 of many small classes, and reach
    100 % too soon. Where no resample can differ, as when every picture is right, the bootstrap would claim certainty:
    Wilson's interval at the effective number of pictures, K^2 / sum(1 / n_k), takes its place.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapters 6 and 12.
    """
    cells, n = confusion_cells(truth, predicted, num_classes), len(truth)
    figures = _figures(cells, num_classes)
    share, rng = cells.num_pictures / n, np.random.default_rng(seed)
    draws = np.empty((num_resamples, 2))
    for i in range(num_resamples):
        resample = _figures(cells._replace(num_pictures=rng.multinomial(n, share)), num_classes)
        draws[i] = _mean_of_defined(resample.recall), _mean_of_defined(resample.f1)
    occur = figures.support[figures.support > 0]
    effective = len(occur) ** 2 / float(np.sum(1 / occur))
    method = f"bootstrap, {num_resamples:,} resamples, logit scale"

    recall, f1 = _mean_of_defined(figures.recall), _mean_of_defined(figures.f1)
    recall_deviation, f1_deviation = map(float, draws.std(axis=0, ddof=1))
    return BalancedIntervals(
        _logit(Interval(recall, 0, 1, level, n, method), recall_deviation, effective),
        _logit(Interval(f1, 0, 1, level, n, method), f1_deviation, effective),
    )


def expected_calibration_error(confidence: AnyFloats, correct: Bools, num_bins: int = 15) -> float:
    """How far the stated probability is from the share that is right, a mean over bins weighted by their pictures.

    `confidence` is the probability of the predicted class, (n,); bins are of equal width. NaN without pictures.

    Source: Guo et al. (2017), "On calibration of modern neural networks".
    """
    if not len(confidence):
        return math.nan
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gap = np.bincount(bins, weights=confidence.astype(np.float64) - correct, minlength=num_bins)
    return float(np.abs(gap).sum() / len(confidence))


def auc(scores: AnyFloats, positive: Bools, level: float = 0.95) -> Interval | None:
    """The area under the ROC curve of `scores` (n,), or None when the pictures are all of one class. Ties count half.

    The interval is DeLong's on the logit scale; where its variance is 0 (a perfect order) or not defined (one picture
    of a class), Wilson's at the size of the smaller class.

    Source: DeLong et al. (1988), by the ranks of Sun and Xu (2014), "Fast implementation of DeLong's algorithm".
    """
    num_pos, num_neg = int(positive.sum()), int((~positive).sum())
    if not num_pos or not num_neg:
        return None
    ranks = _midranks(scores)
    above_negatives = (ranks[positive] - _midranks(scores[positive])) / num_neg
    above_positives = (ranks[~positive] - _midranks(scores[~positive])) / num_pos
    value = float(above_negatives.mean())
    smaller = min(num_pos, num_neg)
    variance = 0.0
    if smaller > 1:
        variance = float(above_negatives.var(ddof=1)) / num_pos + float(above_positives.var(ddof=1)) / num_neg
    return _logit(Interval(value, 0, 1, level, len(scores), "DeLong, logit scale"), math.sqrt(variance), smaller)


def downsample(x: Floats, y: Floats, num: int) -> Ints:
    """The positions of `num` (3 or more) points that show the shape of a curve, both ends among them; all if fewer.

    `x` rises, `y` is finite, both (n,). The points between the ends are divided into buckets of equal size; of each
    the point is taken that spans the largest triangle with the one before and the mean of the next bucket (for `x`, its
    middle).

    Source: Steinarsson (2013), "Downsampling time series for visual representation" (LTTB).
    """
    if len(x) <= num:
        return np.arange(len(x))
    from tsdownsample import LTTBDownsampler

    chosen: npt.NDArray[np.uint64] = LTTBDownsampler().downsample(x, y, n_out=num)  # type: ignore[no-untyped-call]
    return chosen.astype(np.int64)


def _logit(of: Interval, deviation: float, effective: float) -> Interval:
    """`of` with the bounds of a normal interval on the logit scale, which cannot leave 0..1.

    `deviation` is the standard error of the value; where it is 0, the bounds are Wilson's at `effective` pictures.
    """
    # Rounding leaves a deviation of 1e-17 where every resample is the same.
    if deviation < 1e-9 or of.value in (0.0, 1.0):
        return wilson(of.value * effective, effective, of.level)._replace(num_pictures=of.num_pictures)
    centre = math.log(of.value / (1 - of.value))
    reach = _z(of.level) * deviation / (of.value * (1 - of.value))
    return of._replace(low=_expit(centre - reach), high=_expit(centre + reach))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


class _Counts(NamedTuple):
    """Of each class: the pictures that were found, those that it has, and those that were taken for it."""

    hits: Ints
    support: Ints
    claimed: Ints


def _counts(cells: Cells, num_classes: int) -> _Counts:
    hit = cells.true == cells.predicted
    counted = [
        np.bincount(cells.true[hit], cells.num_pictures[hit], minlength=num_classes),
        np.bincount(cells.true, cells.num_pictures, minlength=num_classes),
        np.bincount(cells.predicted, cells.num_pictures, minlength=num_classes),
    ]
    return _Counts(*(each.astype(np.int64) for each in counted))


def _figures(cells: Cells, num_classes: int) -> PerClass:
    hits, support, claimed = _counts(cells, num_classes)
    return PerClass(_ratio(hits, claimed), _ratio(hits, support), _ratio(2 * hits, support + claimed), support)


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    quotient: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return quotient


def _mean_of_defined(figures: Floats) -> float:
    defined = figures[~np.isnan(figures)]
    return float(defined.mean()) if len(defined) else math.nan


def _midranks(scores: AnyFloats) -> Floats:
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: Floats = np.cumsum(counts) - (counts - 1) / 2
    return ranks[place]


@functools.cache
def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
