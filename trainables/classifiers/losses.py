"""What a classifier's training makes small."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def soft_cross_entropy(logits_NK: Tensor, targets_NK: Tensor, class_weights_K: Tensor) -> Tensor:
    """Cross-entropy with soft labels and class weights: mean_i sum_c w_c y_ic (-log p_ic).

    The mean is over samples, not over weights, so that it means the same for hard and for mixed labels.

    Args:
        logits_NK: float32.
        targets_NK: float32, rows sum to 1.
        class_weights_K: float32, 1 for every class where there are no weights.

    Returns:
        A scalar, at least 0.

    Source: methods, "Order of things in a fold", 5.
    """
    return -(class_weights_K * targets_NK * log_softmax(logits_NK, dim=1)).sum(dim=1).mean()


def class_weights(counts: tuple[int, ...]) -> Tensor:
    """Weights that let every class count alike: w_c = N / (C N_c).

    Args:
        counts: real images of each class, before synthesis. A class without images is weighted as if it had one.

    Returns:
        float32 (K,).

    Source: methods, "Order of things in a fold", 5.
    """
    counts_K = torch.tensor(counts, dtype=torch.float64)
    return (counts_K.sum() / (len(counts) * counts_K.clamp(min=1))).float()


def smoothed(targets_NK: Tensor, share: float) -> Tensor:
    """Label smoothing of hard or mixed labels: (1 - share) y + share / K.

    Args:
        targets_NK: rows sum to 1.
        share: in [0, 1); 0 leaves the labels as they are.

    Returns:
        The same shape; rows sum to 1.

    Source: Szegedy et al. 2016, section 7.
    """
    return (1 - share) * targets_NK + share / targets_NK.shape[1]


def jensen_shannon(logits_VNK: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the class distributions that V versions of each image are given.

    The mean over images of mean_v KL(p_v || M), where M = mean_v p_v. Everything is computed from log-probabilities, so
    that confident predictions neither overflow nor need a clamp; the gradient flows through every version.

    Args:
        logits_VNK: V >= 1 versions of the same N >= 1 images; bfloat16 and float16 are computed as float32.

    Returns:
        A scalar in [0, log V], in nats, float32 or wider.

    Source: AugMix (Hendrycks et al. 2020), equation 3, for any number of versions.
    """
    logits_VNK = logits_VNK if logits_VNK.element_size() >= 4 else logits_VNK.float()
    log_p_VNK = log_softmax(logits_VNK, dim=2)
    log_mixture_NK = log_p_VNK.logsumexp(dim=0) - math.log(len(log_p_VNK))
    return (log_p_VNK.exp() * (log_p_VNK - log_mixture_NK)).sum(dim=2).mean()
