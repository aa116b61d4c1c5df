"""What a generator draws its images from: N(0, I), or a mixture of Gaussians (Ben-Yosef & Weinshall 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NormalLatents(nn.Module):
    """z ~ N(0, I)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """All that is random in ``count`` latents, float32 (count, L): the latents themselves."""
        return torch.randn(count, self.size, generator=rng)

    def forward(self, noise_NL: Tensor) -> Tensor:
        """The latents of this noise."""
        return noise_NL


class MixtureLatents(nn.Module):
    """z = mu_k + s_k * eps with k uniform over the components and eps ~ N(0, I).

    Centres start at mu_k ~ U[-c, c]^L and scales at s_k = sqrt(sigma): the components' covariance is sigma I. Learnt
    ones are parameters, which the noise does not depend on: gradients reach them through z (Ben-Yosef & Weinshall 2018,
    section 2.2).

    Args:
        size: length L of z.
        components: K.
        centre_range: c.
        sigma: variance of every component along every axis.
        learnt: whether centres and diagonal scales are trained with the generator (the source's dynamic mixture)
            or stay as they were drawn (its static one).
    """

    centres_KL: Tensor
    scales_KL: Tensor

    def __init__(self, size: int, *, components: int, centre_range: float, sigma: float, learnt: bool) -> None:
        super().__init__()
        self.size = size
        self._centre_range = centre_range
        self._sigma = sigma
        for name in ("centres_KL", "scales_KL"):
            empty_KL = torch.empty(components, size)
            if learnt:
                self.register_parameter(name, nn.Parameter(empty_KL))
            else:
                self.register_buffer(name, empty_KL)

    @torch.no_grad()
    def draw(self, *, rng: torch.Generator) -> None:
        """Begin anew: draw all centres, and set all scales."""
        self.centres_KL.copy_(torch.rand(self.centres_KL.shape, generator=rng).mul_(2).sub_(1).mul_(self._centre_range))
        self.scales_KL.fill_(math.sqrt(self._sigma))

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """All that is random in ``count`` latents: float32 (count, 1 + L), each row [k, eps]."""
        chosen_N = torch.randint(len(self.centres_KL), (count,), generator=rng)
        return torch.cat([chosen_N[:, None].float(), torch.randn(count, self.size, generator=rng)], dim=1)

    def forward(self, noise_NM: Tensor) -> Tensor:
        """The latents (N, L) of noise (N, 1 + L) from ``noise``."""
        chosen_N = noise_NM[:, 0].long()
        return self.centres_KL[chosen_N] + self.scales_KL[chosen_N] * noise_NM[:, 1:]


Latents = NormalLatents | MixtureLatents
