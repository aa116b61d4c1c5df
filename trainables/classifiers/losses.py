"""Losses that compare several versions of the same images."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import log_softmax


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
