"""Reference policies: what every search is compared with, and so tries first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces.config import SYNTHETIC_MIXERS, names_under
from spaces.generators import NoGeneratorConfig
from spaces.paper_table import references_within
from spaces.parameter import Value
from spaces.presets import TABLES
from spaces.space import Assignment, Space

REFERENCES: Mapping[str, Mapping[str, Value]] = MappingProxyType(
    {
        "none": {"mixer.name": "real", "affine": False},
        "affine": {"mixer.name": "real", "affine": True},
        "mixup": {"mixer.name": "mixup", "mixer.mixup_alpha": 0.2, "affine": False},
        "genmix": {
            "mixer.name": "genmix",
            "mixer.genmix_alpha": 0.3,
            "generator.name": "dcgan",
            "synthetic.ratio": 1.0,
            "synthetic.balance": False,
            "affine": False,
        },
    }
)
"""None, classical, mixup at 0.2, and GenMix as in paper 2, section 3.1 (alpha 0.3, as many synthetic as real)."""


def reference_policies(space: Space) -> dict[str, Assignment]:
    """The reference policies as configurations, with the space's values for all that a policy leaves open.

    Args:
        space: a search space; its dimensions outside the policies (the learning rate, say) supply defaults. A
            generator that the space does not leave open replaces the policy's.

    Returns:
        Policy name to flat configuration. They may lie outside the space, for instance where ``--set`` fixed
        another mixer: a search is compared with them all the same. Of a paper's table only those that are rows of it.
    """
    policies: dict[str, Assignment] = {}
    defaults = {each.name: each.parameter.default for each in space.dimensions if each.when is None}
    for name, policy in REFERENCES.items():
        chosen = {**defaults, **policy}
        generator = next((each.parameter for each in space.dimensions if each.name == "generator.name"), None)
        if "generator.name" in chosen and generator is not None and not generator.contains(chosen["generator.name"]):
            chosen["generator.name"] = generator.default
        for dimension in space.dimensions:
            if dimension.when is not None and dimension.exists(chosen):
                chosen.setdefault(dimension.name, dimension.parameter.default)
        policies[name] = _understood(chosen)
    return references_within(space, policies) if space.name in TABLES else policies


def _understood(policy: Assignment) -> Assignment:
    """What a policy's own mixer and generator understand of it: a space may name settings without a condition."""
    mixer = str(policy["mixer.name"])
    if mixer in SYNTHETIC_MIXERS:
        names = {*names_under(mixer, str(policy["generator.name"]))}
    else:
        names = {*names_under(mixer, NoGeneratorConfig.name)} - {"generator.name"}
    return {name: value for name, value in policy.items() if name in names}
