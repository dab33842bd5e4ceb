"""What the report layer asks of priors, which live in a layer it does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class PriorLike(Protocol):
    """A prior distribution by name."""

    @property
    def name(self) -> str:
        """Name of a PyMC distribution."""

    @property
    def args(self) -> Mapping[str, Any]:
        """Its parameters."""


class PriorEntryLike(Protocol):
    """The prior of one parameter."""

    @property
    def name(self) -> str:
        """Name of the parameter."""

    @property
    def kind(self) -> str:
        """One of "intercept", "coefficient", "sd", "corr", "sigma", "aux"."""

    @property
    def prior(self) -> PriorLike:
        """The distribution."""

    @property
    def note(self) -> str:
        """Where it comes from."""

    @property
    def term(self) -> int:
        """Position of the random term, for SDs and correlations; -1 otherwise."""


class PriorsLike(Protocol):
    """All priors of a model."""

    @property
    def entries(self) -> Sequence[PriorEntryLike]:
        """One per parameter."""

    @property
    def centred(self) -> bool:
        """Whether the intercept's prior is for predictors at their means."""
