"""The two heads of ACGAN's discriminator and what each network gains from them."""

from __future__ import annotations

import torch

from spaces.generators import AcganConfig
from trainables.generators.acgan import Acgan, source_loss
from trainables.generators.training import TrainingImages

CPU = torch.device("cpu")


def test_the_source_loss_is_its_formula() -> None:
    logits_N = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(source_loss(logits_N), -torch.log(torch.sigmoid(logits_N)).mean())


def test_the_recorded_losses_are_those_of_the_first_batch_written_out() -> None:
    rng = torch.Generator().manual_seed(0)
    images = TrainingImages(
        images_NCHW=(0.3 * torch.randn(8, 1, 32, 32, generator=rng)).clamp(-1, 1),
        labels_N=torch.arange(8) % 2,
        n_classes=2,
    )
    config = AcganConfig(batch_size=8, width=4, latent_size=4, class_weight=0.5)
    training, twin = (Acgan(config).train_one(images, seed=3, device=CPU) for _ in range(2))
    training.step()
    found = training.curves.lists()

    drawn = twin._draw()
    real_NCHW, labels_N = twin._real(drawn)
    logits_N, classes_NK = twin._discriminator(real_NCHW)
    fake_logits_N, _ = twin._discriminator(twin._fake(drawn, labels_N))
    source = -(torch.log(torch.sigmoid(logits_N)).mean() + torch.log(1 - torch.sigmoid(fake_logits_N)).mean())
    real_class = -classes_NK.softmax(dim=1)[torch.arange(8), labels_N].log().mean()
    assert abs(found["discriminator_loss"][0] - source.item()) < 1e-4
    assert abs(found["real_class_loss"][0] - real_class.item()) < 1e-4


def test_the_discriminator_learns_the_classes_of_real_images() -> None:
    rng = torch.Generator().manual_seed(0)
    labels_N = torch.arange(32) % 2
    levels_NCHW = (labels_N - 0.5)[:, None, None, None] + 0.2 * torch.randn(32, 1, 32, 32, generator=rng)
    images = TrainingImages(images_NCHW=levels_NCHW.clamp(-1, 1), labels_N=labels_N, n_classes=2)
    training = Acgan(AcganConfig(batch_size=16, width=8, latent_size=8)).train_one(images, seed=3, device=CPU)
    for _ in range(40):
        training.step()
    losses = training.curves.lists()["real_class_loss"]
    assert losses[-1] < 0.3 < losses[0]
