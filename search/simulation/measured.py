"""How long stages have taken in a storage, as under the settings and with the images of another search."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from search.durations import Durations, Kind, learn
from search.simulation.work import RelativeWork, classifier_work, generator_work
from spaces.budget import Budget
from spaces.config import as_dict
from spaces.parameter import Value
from spaces.space import Space
from trainables.ledger import SHARED

_Made = TypeVar("_Made")
_MOST_MANIFESTS = 1000
"""Read of one kind of stage, so that an estimate stays quick."""


def measured_durations(storage: Path, space: Space, budget: Budget, *, images: int) -> Durations:
    """What stages took in a storage, whatever the machine; empty where it has none.

    Seconds are brought to the budget's own settings and to as many images in proportion to what there was to compute.
    Trainings with a batch size or a width that the search does not have are left out, and of a kind of stage that was
    measured with images of the search's size those of other sizes.

    Args:
        storage: the folder of searches.
        space: what is searched.
        budget: its budget.
        images: training images of a fold.
    """
    rows = list(_Storage(storage / SHARED / "stages", space, budget, images).rows())
    alike = {row.kind for row in rows if row.is_alike}
    found = learn((*row.kind, row.seconds) for row in rows if row.is_alike or row.kind not in alike)
    return Durations(spreads=found.spreads, measured=found.measured, images=images)


class _Row(NamedTuple):
    """Seconds of a stage as they would be; ``is_alike`` where its images have the size of the search's."""

    kind: Kind
    seconds: float
    is_alike: bool


class _Manifest(NamedTuple):
    digest: str
    key: Mapping[str, Any]
    seconds: float


class _Storage:
    """The finished stages of a storage, for one search."""

    def __init__(self, root: Path, space: Space, budget: Budget, images: int) -> None:
        self._space, self._budget, self._images = space, budget, images
        self._relative = RelativeWork(budget)
        names = ("preprocess", "extractor", "fidelity", "generator", "classifier")
        self._found = {name: list(_manifests(root / name)) for name in names}
        self._pixels = dict(
            _each(self._found["preprocess"], lambda one: (one.digest, int(one.key["config"]["pixels"])))
        )
        self._trained_on = dict(
            _each(self._found["classifier"], lambda one: (one.key["inputs"][0], sum(one.key["config"]["counts"][0])))
        )
        self._extracted = dict(_each(self._found["extractor"], lambda one: (one.digest, one.key["inputs"][0])))
        self._own_pixels = int(budget.settings["preprocess.pixels"])

    def rows(self) -> Iterator[_Row]:
        """All that can be used."""
        makers: Mapping[str, Callable[[_Manifest], _Row | None]] = {
            "preprocess": lambda one: self._of_images("preprocess", one.digest, one.seconds, by_area=False),
            "extractor": lambda one: self._of_images("extractor", one.key["inputs"][0], one.seconds),
            "fidelity": lambda one: self._of_images("fidelity", self._extracted[one.key["inputs"][0]], one.seconds),
            "generator": self._generator,
            "classifier": self._classifier,
        }
        for stage, make in makers.items():
            yield from (row for row in _each(self._found[stage], make) if row is not None)

    def _of_images(self, stage: str, preprocessed: str, seconds: float, *, by_area: bool = True) -> _Row:
        pixels = self._pixels[preprocessed]
        images = self._images / self._trained_on.get(preprocessed, self._images)
        area = (self._own_pixels / pixels) ** 2 if by_area else 1.0
        return _Row((stage, ""), seconds * images * area, self._can_be("preprocess.pixels", pixels))

    def _generator(self, one: _Manifest) -> _Row | None:
        settings, steps = one.key["config"], int(one.key["position"])
        name, pixels = settings["name"], self._pixels[one.key["inputs"][0]]
        own = as_dict(self._relative.own(name).generator)
        if not all(self._can_be(f"generator.{each}", settings.get(each), name) for each in ("batch_size", "width")):
            return None
        work = generator_work(own, steps=own["steps"], pixels=self._own_pixels)
        seconds = one.seconds * work / generator_work(settings, steps=steps, pixels=pixels)
        return _Row(("generator", name), seconds, self._can_be("preprocess.pixels", pixels))

    def _classifier(self, one: _Manifest) -> _Row | None:
        settings, preprocessed = one.key["config"]["classifier"], one.key["inputs"][0]
        pixels = self._pixels[preprocessed]
        if not self._can_be("classifier.batch_size", settings["batch_size"]):
            return None
        epochs = int(one.key["position"] or settings["epochs"])  # earlier versions kept it among the settings
        own = classifier_work(
            epochs=int(self._budget.settings["classifier.epochs"]), images=self._images, pixels=self._own_pixels
        )
        images = self._trained_on.get(preprocessed, self._images)
        seconds = one.seconds * own / classifier_work(epochs=epochs, images=images, pixels=pixels)
        kind = "classifier", f"{settings['name']} {one.key['config']['mixer']['name']}"
        return _Row(kind, seconds, self._can_be("preprocess.pixels", pixels))

    def _can_be(self, name: str, value: Value | None, generator: str | None = None) -> bool:
        """Whether a setting has a value in some trial, of a generator where one is given."""
        field = name.partition(".")[2]
        settings = self._budget.settings if generator is None else self._budget.generators.get(generator, {})
        usual = settings.get(name if generator is None else field, value)
        variants = self._space.variants(name) if name in self._space.names else ()
        if generator is not None:
            variants = tuple(each for each in variants if generator in self._space.generators_of(each))
        if value is None or not variants:
            return value == usual
        return any(each.parameter.contains(value) for each in variants)


def _each(manifests: Iterable[_Manifest], make: Callable[[_Manifest], _Made]) -> Iterator[_Made]:
    """What is made of each manifest; those of another form are left out."""
    for manifest in manifests:
        try:
            yield make(manifest)
        except (LookupError, TypeError, ValueError, ZeroDivisionError):
            continue


def _manifests(folder: Path) -> Iterator[_Manifest]:
    """The finished stages of one kind that did not fail; what cannot be read is left out."""
    paths = sorted(folder.glob("*/stage.json"))[:_MOST_MANIFESTS]
    for path in paths:
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["failed"] is None:
                yield _Manifest(path.parent.name, manifest["key"], float(manifest["seconds"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
