"""From flat dictionaries to typed configurations."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from spaces.budget import BUDGETS, budget_named
from spaces.config import MIXERS, TrialConfig, trial_config
from spaces.corners import check_space
from spaces.errors import ConfigError, SpaceError
from spaces.fixed_settings import with_generator_setting
from spaces.generators import GENERATORS, PRECISIONS, DaeGanConfig, EganConfig, NoGeneratorConfig, TrainedConfig
from spaces.parameter import Value
from spaces.presets import PRESETS
from spaces.reference import reference_policies
from spaces.space import When
from spaces.space_file import space_from_yaml

QUICK = BUDGETS["quick"]


def test_every_sample_of_every_preset_is_a_trial_under_every_budget() -> None:
    rng = random.Random(0)
    for space in PRESETS.values():
        for budget in BUDGETS.values():
            check_space(space, budget)
            assert all(isinstance(trial_config(space.sample(rng), budget), TrialConfig) for _ in range(50))


def test_two_samples_of_different_digest_compute_different_things() -> None:
    rng = random.Random(0)
    seen: dict[str, object] = {}
    for _ in range(500):
        flat = PRESETS["genmix"].sample(rng)
        digest = trial_config(flat, QUICK).digest
        assert seen.setdefault(digest, flat) == flat


def test_the_budget_fills_what_is_not_searched_and_the_configuration_overrides_it() -> None:
    flat = {"mixer.name": "genmix", "generator.name": "egan", "generator.gamma": 0.02}
    config = trial_config(flat, QUICK)
    assert isinstance(config.generator, EganConfig)
    assert config.generator.gamma == 0.02
    assert config.generator.steps == QUICK.generators["egan"]["steps"]
    longer = trial_config({**flat, "generator.steps": 9}, QUICK)
    assert isinstance(longer.generator, EganConfig)
    assert longer.generator.steps == 9


def test_a_mixer_without_synthetic_images_has_no_generator() -> None:
    assert isinstance(trial_config({"mixer.name": "mixup"}, QUICK).generator, NoGeneratorConfig)
    with pytest.raises(ConfigError, match="uses no synthetic images"):
        trial_config({"mixer.name": "mixup", "generator.name": "dcgan"}, QUICK)
    with pytest.raises(ConfigError, match="needs synthetic images"):
        trial_config({"mixer.name": "genmix"}, QUICK)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"mixer.nam": "real"}, "did you mean 'mixer.name'"),
        ({"mixer.name": "mxup"}, "did you mean 'mixup'"),
        ({"mixer.name": "mixup", "mixer.mixup_alpha": 0.0}, "more than 0"),
        ({"mixer.name": "mixup", "mixer.mixup_alpha": "much"}, "expected float"),
        ({"mixer.name": "mixup", "mixer.genmix_alpha": 0.3}, "no setting of mixer.name=mixup"),
        ({"mixer.name": "cutmix", "mixer.cutmix_alpha": 11.0}, "more than 0, at most 10"),
        ({"mixer.name": "augmix", "mixer.severity": 11}, "1 to 10"),
        ({"mixer.name": "augmix", "mixer.width": 0}, "1 to 10"),
        ({"mixer.name": "augmix", "mixer.depth": -1}, "1 to 10, or 0"),
        ({"mixer.name": "augmix", "mixer.js_weight": -1.0}, "0 to 100"),
        ({"mixer.name": "genmix", "generator.name": "dcgan", "mixer.partner": "pol"}, "did you mean 'pool'"),
        ({"classifier.epochs": True}, "expected int"),
        ({"classifier.name": "resnet5"}, "did you mean 'resnet50'"),
        ({"affine": "on"}, "expected on or off"),
        ({"preprocess.pixels": 33}, "multiple of 16"),
    ],
)
def test_an_unknown_name_or_impossible_value_is_refused(flat: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trial_config(flat, QUICK)  # type: ignore[arg-type]


def test_a_space_over_names_or_bounds_that_no_trial_understands_is_refused() -> None:
    dimension = "{{name: x, dimensions: [{{name: {}, type: float, low: {}, high: {}, default: 1}}]}}"
    with pytest.raises(SpaceError, match=r"did you mean 'classifier\.learning_rate'"):
        check_space(space_from_yaml(dimension.format("classifier.lerning_rate", 0.1, 1), source="t"), QUICK)
    with pytest.raises(SpaceError, match="at most 1"):
        check_space(space_from_yaml(dimension.format("classifier.learning_rate", 0.1, 2), source="t"), QUICK)


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        (
            "{name: mixer.name, type: choice, options: [real, mixup], default: real}, "
            "{name: affine, type: choice, options: [false], default: false, when: {mixer.name: [mixup]}, "
            "otherwise: true}",
            "'otherwise' of 'affine' is True, but .* trials take False",
        ),
        ("{name: classifier.patience, type: float, low: 3, high: 8, default: 3}", "patience is .* expected int"),
        ("{name: preprocess.pixels, type: int, low: 32, high: 64, default: 32}", "multiple of 16"),
        (
            "{name: classifier.epochs, type: int, low: 5, high: 20, default: 20}, "
            "{name: classifier.schedule_epochs, type: choice, options: [0, 15], default: 0}",
            "schedule_epochs",
        ),
        ("{name: affine, type: choice, options: [false], default: false}, "
         "{name: classifier.batch_size, type: choice, options: [8, 16], default: 16.0}", "batch_size is 16.0"),
    ],
)  # fmt: skip
def test_a_space_whose_draws_or_reference_policies_are_no_configurations_is_refused(
    dimensions: str, message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        check_space(space_from_yaml(f"{{name: x, dimensions: [{dimensions}]}}", source="t"), QUICK)


@pytest.mark.parametrize(
    "dimensions",
    [
        "{name: mixer.name, type: choice, options: [mixup], default: mixup}, "
        "{name: mixer.mixup_alpha, type: float, low: 0.1, high: 1.0, default: 0.4}",
        "{name: mixer.name, type: choice, options: [genmix, blend], default: genmix}, "
        "{name: generator.name, type: choice, options: [acgan, dcgan], default: acgan}, "
        "{name: synthetic.ratio, type: float, low: 0.5, high: 2.0, default: 0.5}",
    ],
)
def test_reference_policies_leave_out_what_their_own_mixer_does_not_know(dimensions: str) -> None:
    space = space_from_yaml(f"{{name: x, dimensions: [{dimensions}]}}", source="t")
    policies = reference_policies(space)
    assert {name: trial_config(policy, QUICK).mixer.name for name, policy in policies.items()} == {
        "none": "real", "affine": "real", "mixup": "mixup", "genmix": "genmix",
    }  # fmt: skip
    assert policies["none"] == {"mixer.name": "real", "affine": False}
    assert policies["genmix"]["synthetic.ratio"] == 1.0


def test_a_searched_setting_of_a_generator_has_the_configurations_default() -> None:
    for space in PRESETS.values():
        for dimension in space.dimensions:
            for generator in space.generators_of(dimension):
                default = {each.name: each.default for each in dataclasses.fields(GENERATORS[str(generator)])}[
                    dimension.name.partition(".")[2]
                ]
                assert dimension.parameter.default == default or default == "", (generator, dimension.name)


@pytest.mark.parametrize(
    ("generator", "names"),
    [
        ("dcgan", ""),
        ("acgan", ""),
        ("wgan_gp", ""),
        ("egan", "gamma survivors discriminator_steps"),
        (
            "dae_gan",
            "gamma survivors discriminator_steps mixing_alpha components latent_size centre_range sigma mixture",
        ),
        ("stylegan", "r1_weight augmentation"),
        ("diffusion", "sampling_steps guidance pretrained"),
        ("textual_inversion", "pretrained tokens_per_class steps strength"),
    ],
)
def test_each_generator_has_its_own_dimensions_in_genmix(generator: str, names: str) -> None:
    space, _ = PRESETS["genmix"].fix("generator.name", generator)
    own = {name for name in space.names if name.startswith("generator.")} - {"generator.name"}
    assert own == {f"generator.{name}" for name in names.split()}


@pytest.mark.parametrize(
    ("mixer", "names"),
    [
        ("real", ""),
        ("blend", ""),
        ("mixup", "mixup_alpha"),
        ("cutmix", "cutmix_alpha"),
        ("augmix", "severity"),
        ("genmix", "genmix_alpha partner"),
    ],
)
def test_each_mixer_has_its_own_dimensions_in_genmix(mixer: str, names: str) -> None:
    space, _ = PRESETS["genmix"].fix("mixer.name", mixer)
    own = {name for name in space.names if name.startswith("mixer.")} - {"mixer.name"}
    assert own == {f"mixer.{name}" for name in names.split()}
    config = trial_config(space.complete({}), QUICK).mixer
    assert config == MIXERS[mixer]()


def test_every_part_of_dae_gan_can_be_switched_off_on_its_own() -> None:
    space = PRESETS["dae_gan"]
    whole = trial_config(space.complete({}), QUICK).generator
    assert isinstance(whole, DaeGanConfig)
    parts = {"residual": False, "attention": False, "mixture": "off", "mixed_input": False, "affine_copies": 0}
    for name, off in parts.items():
        flat = space.complete({f"generator.{name}": off})
        assert space.contains(flat)
        assert trial_config(flat, QUICK).generator == dataclasses.replace(whole, **{name: off})  # type: ignore[arg-type]


def test_the_reference_policies_are_trials_and_lie_in_the_space_they_refer_to() -> None:
    space = PRESETS["genmix"]
    policies = reference_policies(space)
    assert list(policies) == ["none", "affine", "mixup", "genmix"]
    assert all(space.contains(policy) for policy in policies.values())
    assert policies["mixup"]["mixer.mixup_alpha"] == 0.2
    assert (policies["genmix"]["mixer.genmix_alpha"], policies["genmix"]["synthetic.ratio"]) == (0.3, 1.0)


def test_reference_policies_follow_a_fixed_generator_and_survive_a_fixed_mixer() -> None:
    egan, _ = PRESETS["genmix"].fix("generator.name", "egan")
    assert reference_policies(egan)["genmix"]["generator.name"] == "egan"
    assert trial_config(reference_policies(egan)["none"], QUICK).mixer.name == "real"
    mixup, _ = PRESETS["genmix"].fix("mixer.name", "mixup")
    for policy in reference_policies(mixup).values():
        trial_config(policy, QUICK)


def test_an_unknown_budget_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        budget_named("quik")


def test_a_setting_that_no_dimension_searches_is_fixed_for_the_generators_that_have_it() -> None:
    blend, _ = PRESETS["genmix"].fix("mixer.name", "blend")
    space, notes = with_generator_setting(blend, "generator.critic_steps", "2", QUICK)
    found = space.dimension("generator.critic_steps")
    assert found.when == When(parent="generator.name", values=("wgan_gp",))
    assert notes == ()
    config = space.complete({"generator.name": "wgan_gp"})
    assert trial_config(config, QUICK).generator.critic_steps == 2
    assert "generator.critic_steps" not in space.complete({"generator.name": "dcgan"})
    with pytest.raises(SpaceError, match="none of this space's generators"):
        with_generator_setting(PRESETS["genmix"].fix("generator.name", "dcgan")[0], "generator.gamma", "0.1", QUICK)
    with pytest.raises(SpaceError, match=r"critic_steps=x: expected a whole number, such as its default 5"):
        with_generator_setting(PRESETS["genmix"], "generator.critic_steps", "x", QUICK)


@pytest.mark.parametrize(
    ("name", "text", "without", "why"),
    [
        ("generator.precision", "tf32", "wgan_gp", "expected one of float32, bfloat16"),
        ("generator.reuse_gradient", "true", "dae_gan", "set generator.mixed_fitness as generator.mixed_input"),
    ],
)
def test_a_setting_is_fixed_where_it_can_be_and_it_is_said_where_it_cannot(
    name: str, text: str, without: str, why: str
) -> None:
    space, notes = with_generator_setting(PRESETS["genmix"], name, text, QUICK)
    check_space(space, QUICK)
    [note] = notes
    assert note.startswith(f"{name}={text} leaves {without} as it is: ")
    assert note.endswith(why)
    assert name in space.complete({"mixer.name": "blend", "generator.name": "egan"})
    assert name not in space.complete({"mixer.name": "blend", "generator.name": without})


def test_a_setting_that_no_generator_can_have_is_refused() -> None:
    alone, _ = PRESETS["genmix"].fix("generator.name", "wgan_gp")
    for space, text in ((alone, "tf32"), (PRESETS["genmix"], "float16")):
        with pytest.raises(SpaceError, match=rf"--set generator.precision={text}: .*expected one of float32"):
            with_generator_setting(space, "generator.precision", text, QUICK)


TRAINED = [name for name, config in GENERATORS.items() if "steps" in config.__dataclass_fields__]
NEEDED: dict[str, dict[str, Any]] = {"textual_inversion": {"pretrained": "a/pipeline"}}


@pytest.mark.parametrize("name", TRAINED)
def test_every_generator_that_trains_does_so_in_the_precision_that_is_asked_for(name: str) -> None:
    needed = NEEDED.get(name, {})
    default = GENERATORS[name](**needed)
    assert isinstance(default, TrainedConfig)
    assert default.precision == "float32"
    valid = default.precisions()
    assert set(PRECISIONS) - set(valid) == ({"tf32"} if name == "wgan_gp" else set())
    assert all(dataclasses.replace(default, precision=each).precision == each for each in valid)
    for other in {"float16", *PRECISIONS} - set(valid):
        with pytest.raises(
            ConfigError, match=rf"generator\.precision is '{other}'; expected one of {', '.join(valid)}"
        ):
            dataclasses.replace(default, precision=other)


@pytest.mark.parametrize("mixed_input", [False, True])
@pytest.mark.parametrize("mixed_fitness", [False, True])
def test_a_gradient_is_reused_only_where_it_is_of_the_discriminators_own_loss(
    mixed_input: bool, mixed_fitness: bool
) -> None:
    flat: dict[str, Value] = {
        "mixer.name": "genmix",
        "generator.name": "dae_gan",
        "generator.mixed_input": mixed_input,
        "generator.mixed_fitness": mixed_fitness,
    }
    trial_config(flat, QUICK)
    reusing = {**flat, "generator.reuse_gradient": True}
    if mixed_input == mixed_fitness:
        generator = trial_config(reusing, QUICK).generator
        assert isinstance(generator, DaeGanConfig)
        assert generator.reuse_gradient
        return
    with pytest.raises(ConfigError, match=r"reuse_gradient is True; expected false where .*generator\.mixed_fitness"):
        trial_config(reusing, QUICK)


def test_a_space_in_which_no_trial_could_reuse_the_gradient_is_refused_before_any_trial() -> None:
    with pytest.raises(SpaceError, match=r"generator\.reuse_gradient is True; expected false where"):
        with_generator_setting(PRESETS["dae_gan"], "generator.reuse_gradient", "true", QUICK)


def test_how_a_generator_is_computed_is_part_of_what_it_is() -> None:
    flat: dict[str, Value] = {"mixer.name": "genmix", "generator.name": "egan"}
    plain = trial_config(flat, QUICK).digest
    others: tuple[dict[str, Value], ...] = ({"generator.precision": "bfloat16"}, {"generator.reuse_gradient": True})
    assert len({plain, *(trial_config({**flat, **other}, QUICK).digest for other in others)}) == 3
