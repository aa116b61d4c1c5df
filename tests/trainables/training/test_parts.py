"""What a checkpoint holds: every part comes back with the same bytes, and goes on in the same way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainables.generators.averages import WeightAverage, decay_after
from trainables.generators.networks.spectral import normalised
from trainables.training.parts import Part, pack, unpack


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tiny:
    """A network with its optimiser, random stream and average, each changing at every step."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 4, 1))
            self.network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        normalised(self.network, rng=rng(seed))
        self.adam = torch.optim.Adam(self.network.parameters(), lr=0.01, fused=True)
        self.rng = rng(seed)
        self.average = WeightAverage(self.network, decay=0.9)

    @property
    def parts(self) -> dict[str, Part]:
        return {"network": self.network, "adam": self.adam, "rng": self.rng, "average": self.average}

    def step(self) -> None:
        loss = self.network(torch.randn(8, 2, 4, 4, generator=self.rng)).square().mean()
        self.adam.zero_grad()
        torch.autograd.backward(loss)
        self.adam.step()
        self.average.update(self.network)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_training_goes_on_from_its_packed_parts_to_the_byte(steps: int) -> None:
    undisturbed, other = Tiny(1), Tiny(2)
    for _ in range(steps):
        undisturbed.step()
    other.step()
    unpack(other.parts, pack(undisturbed.parts))
    for _ in range(3):
        undisturbed.step()
        other.step()
    assert equal(pack(other.parts), pack(undisturbed.parts))


def test_tensors_keep_their_memory_layout() -> None:
    one, other = Tiny(1), Tiny(2)
    one.step()
    unpack(other.parts, pack(one.parts))
    weight = other.network[0].parametrizations.weight.original
    for like in (weight, *(value for value in other.adam.state[weight].values() if value.ndim == 4)):
        assert like.is_contiguous(memory_format=torch.channels_last)


def test_packed_tensors_share_no_memory_with_the_parts() -> None:
    tiny = Tiny(1)
    packed = pack(tiny.parts)
    kept = {name: value.clone() for name, value in packed.items()}
    tiny.step()
    assert equal(packed, kept)


def test_the_average_follows_its_formula() -> None:
    tiny = Tiny(1)
    expected = next(tiny.network.parameters()).detach().clone()
    for update in range(5):
        tiny.step()
        decay = min(0.9, (1 + update) / (10 + update))
        assert decay_after(update, 0.9) == decay
        expected = decay * expected + (1 - decay) * next(tiny.network.parameters()).detach()
    torch.testing.assert_close(next(tiny.average.network.parameters()), expected, rtol=1e-5, atol=1e-7)


def test_spectrally_normalised_weights_have_a_largest_singular_value_of_one() -> None:
    tiny = Tiny(1)
    for _ in range(30):
        tiny.step()
    for layer in (tiny.network[0], tiny.network[3]):
        largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
        assert float(largest) == pytest.approx(1, abs=0.05)


def test_spectral_norm_is_differentiated_through_sigma() -> None:
    layer = normalised(nn.Linear(5, 3).double(), rng=rng()).eval()
    original = layer.parametrizations.weight.original
    left, right = (value.double() for value in layer.parametrizations.weight[0].buffers())
    probe = torch.randn(3, 5, dtype=torch.float64, generator=rng(1))
    layer.parametrizations.weight[0].double()
    (found,) = torch.autograd.grad((layer.weight * probe).sum(), original)
    weight = original.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((weight / (left @ weight @ right) * probe).sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
