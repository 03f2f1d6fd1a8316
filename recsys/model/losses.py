"""What training minimises: how far the item clicked next is from standing above the others.

Shapes: a row is one prediction, of ``[rows]``; each row is compared with the same ``candidates``, except where
``excluded`` (bool ``[rows, candidates]``) says that a candidate is no negative for the row.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

MASKED = -1e30  # finite, so that a row without any negative gives a finite loss (and weight zero)


def masked(excluded: Any, scores: Any) -> Any:
    """Scores, but where ``excluded`` one that counts for nothing."""
    return tf.where(excluded, tf.constant(MASKED, scores.dtype), scores)


def sampled_cross_entropy(positive: Any, negatives: Any, log_expected: Any, excluded: Any) -> Any:
    """Softmax cross-entropy over sampled negatives, with logQ correction (Bengio and Senécal 2008).

    The sum over the catalogue in the softmax's denominator is estimated by importance sampling: a candidate that stands
    ``E`` times in the sample on average weighs ``1 / E``. The target stands there once, surely, and is not corrected,
    so the gradient converges to the full softmax's as the sample grows.

    Args:
        positive: ``[rows]``, the target's score.
        negatives: ``[rows, candidates]``, the candidates' scores.
        log_expected: ``[candidates]``, log of each candidate's expected count in the sample.
        excluded: where a candidate is the target itself, or no negative for other reasons.

    Returns:
        ``[rows]``, the loss of each prediction.
    """
    corrected = masked(excluded, negatives - log_expected)
    return tf.math.softplus(tf.reduce_logsumexp(corrected, axis=1) - positive)


def bpr_max(positive: Any, negatives: Any, excluded: Any, score_penalty: float) -> Any:
    """BPR-max with score regularisation (Hidasi and Karatzoglou 2018, equation 10).

    ``-log sum_j s_j sigmoid(r_i - r_j) + penalty * sum_j s_j r_j^2`` with ``s`` the softmax of the negatives' scores:
    the stronger a negative, the more it counts.

    Returns:
        ``[rows]``, the loss of each prediction.
    """
    log_weight = tf.nn.log_softmax(masked(excluded, negatives), axis=1)
    below = tf.math.log_sigmoid(positive[:, None] - negatives)
    penalty = tf.reduce_sum(tf.exp(log_weight) * tf.square(negatives), axis=1)
    return -tf.reduce_logsumexp(log_weight + below, axis=1) + score_penalty * penalty


def top1_max(positive: Any, negatives: Any, excluded: Any) -> Any:
    """TOP1-max (Hidasi and Karatzoglou 2018, section 3.3).

    ``sum_j s_j (sigmoid(r_j - r_i) + sigmoid(r_j^2))`` with ``s`` the softmax of the negatives' scores: a soft count of
    how often a negative stands above the target, and a pull of the negatives' scores towards zero.

    Returns:
        ``[rows]``, the loss of each prediction.
    """
    weight = tf.nn.softmax(masked(excluded, negatives), axis=1)
    above = tf.sigmoid(negatives - positive[:, None]) + tf.sigmoid(tf.square(negatives))
    return tf.reduce_sum(weight * above, axis=1)
