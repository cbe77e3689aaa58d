"""Parameter components: weight matrices as sums of rank-one parts, with how important each part is at each token.

    W = (V U)ᵀ + delta        W [out, in], V [in, component], U [component, out]

A component's activation is a = x V, it writes a_c U_c, and its causal importance c in [0, 1] says whether the token
needs it. What the components miss of a matrix is `delta`, found from the model's own weights where it is used; biases
stay biases. Cost: two matrix products a matrix. Knows nothing of how V, U and the importances came about.

Source: Bushnaq et al. (2025), Stochastic Parameter Decomposition, equations 1 to 4.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.components.importance.checks import checked
from whence.components.importance.words import Known, fingerprint, kind_of

# (inputs of every decomposed matrix by site: [example, pos, in]; row of the data that each example is) -> importances
# by site: [example, pos, component], each in [0, 1]
Importance = Callable[[Mapping[str, Tensor], Int[Tensor, " example"]], Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Part:
    """One decomposed matrix.

    Args:
        site: Its canonical name, such as "0.attn.q" (`whence.model.matrices`).
        V: What each component reads.
        U: What a unit of each component writes.
        alive: Components that ever matter; all if None.

    Raises:
        ValueError: Shapes that do not fit.
    """

    site: str
    V: Float[Tensor, "into _"]
    U: Float[Tensor, "_ out"]
    alive: Bool[Tensor, " _"] | None = None

    def __post_init__(self) -> None:
        count = self.V.shape[1]
        if self.U.shape[0] != count or (self.alive is not None and self.alive.shape != (count,)):
            shapes = f"V {tuple(self.V.shape)}, U {tuple(self.U.shape)}"
            raise ValueError(f"{self.site}: {shapes} and alive do not speak of the same number of components")

    @property
    def count(self) -> int:
        """Components, alive or not."""
        return self.V.shape[1]

    @property
    def ids(self) -> Int[Tensor, " alive"]:
        """The components that are alive, ascending."""
        return torch.arange(self.count) if self.alive is None else self.alive.nonzero()[:, 0].cpu()


@dataclass(frozen=True, eq=False)
class ParameterComponents:
    """The decomposed matrices of a model, by site; iterating gives the parts.

    Args:
        parts: One a matrix, under its site.
        importance: Says how much each component matters at each token: `Given`, `Network`, `Ones`, or a function.
        source: Where they came from, for the record.
        revision: The version of the source.
        about: What else results should record of them, in JSON's types.

    Raises:
        ValueError: No part, or one that stands under another site.

    Example:
        >>> part = Part("0.attn.q", torch.eye(8, 2), torch.eye(2, 8))
        >>> ParameterComponents({"0.attn.q": part}, lambda inputs, rows: {"0.attn.q": torch.ones(1, 3, 2)})
        ParameterComponents(1 matrices, 2 components, 2 alive, importance: function <lambda>)
    """

    parts: Mapping[str, Part]
    importance: Importance
    source: str | None = None
    revision: str | None = None
    about: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        odd = [f"{part.site} under {site}" for site, part in self.parts.items() if part.site != site]
        if odd or not self.parts:
            raise ValueError(f"parts stand under their own sites, one or more; got {', '.join(odd) or 'none'}")

    @property
    def counts(self) -> dict[str, int]:
        """Components of each site, alive or not."""
        return {site: part.count for site, part in self.parts.items()}

    def importances(self, inputs: Mapping[str, Tensor], rows: Int[Tensor, " example"]) -> dict[str, Tensor]:
        """How much each component matters at each token, by site, [example, pos, component]; checked.

        Args:
            inputs: What every matrix is given, by site, [example, pos, in]; token ids [example, pos] at "embed.matrix".
            rows: Which row of the data each example is.

        Raises:
            ValueError, TypeError: The function gave something else.
        """
        return checked(self.importance(inputs, rows), inputs, self.counts)

    def kept(self, alive: Mapping[str, Bool[Tensor, " _"]]) -> "ParameterComponents":
        """The same with these alive masks; sites that are not named keep theirs.

        Raises:
            ValueError: A site that is not decomposed, or a mask of another length.
        """
        unknown = [site for site in alive if site not in self.parts]
        if unknown:
            raise ValueError(f"alive masks for {', '.join(unknown)}; decomposed are {', '.join(self.parts)}")
        parts = {site: replace(part, alive=alive.get(site, part.alive)) for site, part in self.parts.items()}
        return replace(self, parts=parts)

    def to(self, device: torch.device | str) -> "ParameterComponents":
        """The same on a device; an importance function of your own stays as it is."""
        parts = {site: replace(part, V=part.V.to(device), U=part.U.to(device)) for site, part in self.parts.items()}
        importance = self.importance.to(device) if isinstance(self.importance, Known) else self.importance
        return replace(self, parts=parts, importance=importance)

    def check_fits(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Refuse a model that these components are not for.

        Args:
            sizes: (in, out) of each matrix that the model has, by site; (vocabulary, width) of "embed.matrix".

        Raises:
            ValueError: A matrix that the model lacks, or one of another size.
        """
        for site, part in self.parts.items():
            if site not in sizes:
                raise ValueError(f"the components are for {site}, which the model lacks; it has {', '.join(sizes)}")
            found, wanted = (part.V.shape[0], part.U.shape[1]), tuple(sizes[site])
            if found != wanted:
                sizes_said = f"(in, out) = {found}, and the model's has {wanted}"
                raise ValueError(f"the components of {site} are for {sizes_said}; load the model that was decomposed")

    def describe(self) -> dict[str, Any]:
        """What results record of it, in JSON's types; `fingerprint` tells apart those that differ in numbers."""
        weights = self.importance.tensors if isinstance(self.importance, Known) else {}
        tensors = {f"{part.site}.{end}": getattr(part, end) for part in self for end in ("V", "U", "ids")}
        return {
            "kind": "parameter_components",
            "sites": {part.site: {"count": part.count, "alive": len(part.ids)} for part in self},
            "importance": kind_of(self.importance),
            "source": self.source,
            "revision": self.revision,
            "about": dict(self.about or {}),
            "fingerprint": fingerprint(tensors | dict(weights)),
        }

    def __repr__(self) -> str:
        """One line."""
        count, alive, kind = sum(self.counts.values()), sum(len(part.ids) for part in self), kind_of(self.importance)
        return f"ParameterComponents({len(self)} matrices, {count} components, {alive} alive, importance: {kind})"

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts.values())

    def __len__(self) -> int:
        return len(self.parts)
