from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_tracking.training_curves import POINTS, History, training_curves
from tests.mlflow_tracking.conftest import texts
from tests.mlflow_tracking.made_up import CLASSES, egan_history

MUTATIONS = ("minimax", "heuristic", "least_squares")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "curves.png"


def panels(figure: Figure) -> Iterator[tuple[str, Axes]]:
    return ((axes.get_title(loc="left"), axes) for axes in figure.axes if axes.get_visible())


def lines(axes: Axes) -> dict[str, list[np.ndarray]]:
    """The values of each line of a panel by its colour, solid first."""
    found: dict[str, list[np.ndarray]] = {}
    for line in sorted(axes.get_lines(), key=lambda line: line.get_linestyle() != "-"):
        found.setdefault(str(line.get_color()), []).append(np.asarray(line.get_ydata()))
    return found


def evolved(generations: int, survivors: int, *, gamma: float) -> History:
    """A history in which the children were selected by their fitness."""
    rng = np.random.default_rng(0)
    quality, diversity = rng.uniform(0, 1, (generations, survivors, 3)), rng.normal(-2, 1, (generations, survivors, 3))
    fitness = (quality + gamma * diversity).reshape(generations, -1)
    history = {"selected": (np.argsort(-fitness, axis=1, kind="stable")[:, :survivors] % 3).tolist()}
    for index, name in enumerate(MUTATIONS):
        history[f"quality/{name}"] = quality[..., index].tolist()
        history[f"diversity/{name}"] = diversity[..., index].tolist()
    return history


@pytest.mark.parametrize("survivors", [1, 2])
def test_the_fitness_of_every_child_is_drawn(target: Path, figures: list[Figure], survivors: int) -> None:
    history = evolved(40, survivors, gamma=0.3)
    assert training_curves(history, CLASSES, "title", target, gamma=0.3)
    axes = dict(panels(figures[0]))["fitness of each child, F = F_q + 0.3 F_d"]
    drawn = list(lines(axes).values())
    for name, children in zip(MUTATIONS, drawn, strict=True):
        expected = np.array(history[f"quality/{name}"]) + 0.3 * np.array(history[f"diversity/{name}"])
        np.testing.assert_allclose(np.stack(children, axis=1), expected)


def test_the_child_that_leads_is_the_one_that_was_selected(target: Path, figures: list[Figure]) -> None:
    history = evolved(40, 1, gamma=0.3)
    training_curves(history, CLASSES, "title", target, gamma=0.3)
    axes = dict(panels(figures[0]))["lead of each child: F less its generation's mean"]
    lead = np.stack([children[0] for children in lines(axes).values()])
    np.testing.assert_allclose(lead.sum(axis=0), 0, atol=1e-12)
    assert lead.argmax(axis=0).tolist() == np.array(history["selected"])[:, 0].tolist()


def test_every_generation_has_its_selected_mutation_in_a_lane(target: Path, figures: list[Figure]) -> None:
    history = evolved(40, 1, gamma=0.3)
    training_curves(history, CLASSES, "title", target, gamma=0.3)
    axes = dict(panels(figures[0]))["selected mutation"]
    (lanes,) = axes.get_images()
    coloured = (np.asarray(lanes.get_array()) < 1).any(axis=-1)
    selected = np.array(history["selected"])[:, 0]
    assert (coloured == (np.arange(3)[:, None] == selected[None])).all()
    shares = [f"{(selected == lane).mean():.0%}" for lane in range(3)]
    assert [text.get_text() for text in axes.texts] == shares


def test_without_gamma_quality_and_diversity_are_drawn_and_no_fitness(target: Path, figures: list[Figure]) -> None:
    training_curves(egan_history(), CLASSES, "title", target)
    headings = [heading for heading, _ in panels(figures[0])]
    assert "quality of each child, F_q" in headings
    assert not [heading for heading in headings if heading.startswith("fitness")]


def test_the_networks_of_all_classes_are_drawn_under_their_names(target: Path, figures: list[Figure]) -> None:
    names = ("HCC", "a class with a very long name that nobody would want to read twice", "$x_1$", "d", "e", "f")
    curves = {f"class{label}/loss": [float(label)] * 5 for label in (0, 1, 2, 5)}
    training_curves(curves, names, "title", target)
    drawn = {axes.get_title().strip(): axes for _, axes in panels(figures[0])}
    assert list(drawn)[::2] == ["HCC", "$x_1$"]
    assert list(drawn)[1].endswith("…")
    assert list(drawn)[3] == "f"
    assert [np.asarray(axes.get_lines()[0].get_ydata())[0] for axes in drawn.values()] == [0, 1, 2, 5]


def test_more_networks_than_fit_side_by_side_go_below(target: Path, figures: list[Figure]) -> None:
    names = tuple("abcdef")
    training_curves({f"class{label}/loss": [1.0, 2.0] for label in range(6)}, names, "title", target)
    assert [axes.get_title().strip() for _, axes in panels(figures[0])] == list(names)
    tops = [axes.get_window_extent().y0 for _, axes in panels(figures[0])]
    assert min(tops[:4]) > max(tops[4:])


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        (("discriminator_loss", "generator_loss"), {"loss": 2}),
        (("loss",), {"loss": 1}),
        (("critic_loss", "generator_loss", "gradient_penalty"), {"loss": 2, "gradient penalty": 1}),
        (("discriminator_loss", "real_class_loss", "fake_class_loss"), {"loss": 1, "class loss": 2}),
        (("generator_loss", "ada_probability", "r1"), {"loss": 1, "ada probability": 1, "r1": 1}),
        (("anything", "some_thing/else", "some_thing/other"), {"anything": 1, "some thing": 2}),
    ],
)
def test_every_curve_of_any_generator_is_drawn(
    target: Path, figures: list[Figure], curves: tuple[str, ...], expected: dict[str, int]
) -> None:
    assert training_curves({name: [1.0, 2.0, 3.0] for name in curves}, CLASSES, "title", target)
    assert {heading: len(axes.get_lines()) for heading, axes in panels(figures[0])} == expected


def test_a_long_curve_is_thinned_by_means_over_equal_stretches(target: Path, figures: list[Figure]) -> None:
    values = np.random.default_rng(0).normal(size=POINTS + 100)
    training_curves({"loss": values.tolist()}, CLASSES, "title", target)
    (line,) = figures[0].axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), values.reshape(-1, 2).mean(axis=1))
    np.testing.assert_allclose(line.get_xdata(), np.arange(1.5, POINTS + 100, 2))


def test_several_parents_are_explained_and_one_is_not(target: Path, figures: list[Figure]) -> None:
    training_curves(evolved(10, 2, gamma=0.1), CLASSES, "title", target, gamma=0.1)
    training_curves(evolved(10, 1, gamma=0.1), CLASSES, "title", target, gamma=0.1)
    explained = [any("dashed" in text for text in texts(figure)) for figure in figures]
    assert explained == [True, False]


def test_no_curves_make_no_picture(target: Path) -> None:
    assert not training_curves({}, CLASSES, "title", target)
    assert not training_curves({"loss": []}, CLASSES, "title", target)
    assert not target.exists()
