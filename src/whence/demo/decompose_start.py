"""Where a decomposition starts: the components that rebuild most of what a matrix gives on data, all of them needed.

    M^½ Wᵀ = P S Q        V = M^−½ P        U = S Q        M = mean of x xᵀ over tokens

Of all products V U of so many components this one misses least of x Wᵀ on average. V_c and U_c then get one length.
The network of a matrix takes its input centred, in units of its own spread (folded into the weights), and says 1 of
every component, but for a little noise. Position 0 (`<bos>`) is left out: its inputs are far larger than all others.
Cost: one singular value decomposition a matrix. Knows nothing of what follows.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_RIDGE = 1e-4  # of the mean of M's diagonal: directions that no token has would be stretched without bounds


def components(
    inputs: Float[Tensor, "token into"], weight: Float[Tensor, "out into"], count: int
) -> tuple[Float[Tensor, "into {count}"], Float[Tensor, "{count} out"]]:
    """Return V and U of a matrix."""
    moment = (inputs.T @ inputs / len(inputs)).double()
    moment = moment + _RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
    sizes, axes = torch.linalg.eigh(moment)
    left, scales, right = torch.linalg.svd((axes * sizes.sqrt()) @ axes.T @ weight.T.double(), full_matrices=False)
    V = (axes / sizes.sqrt()) @ axes.T @ left[:, :count]
    U = scales[:count, None] * right[:count]
    balance = (U.norm(dim=1) / V.norm(dim=0)).sqrt()
    return (V * balance).float(), (U / balance[:, None]).float()


def network(
    inputs: Float[Tensor, "token into"], hidden: int, count: int, generator: torch.Generator
) -> dict[str, Float[Tensor, "*shape"]]:
    """Return the weights of a perceptron with one hidden layer, named as importance networks name them."""
    into = inputs.shape[1]
    first = torch.randn(into, hidden, generator=generator) * (2 / into) ** 0.5 / inputs.std()
    second = 0.3 * hidden**-0.5 * torch.randn(hidden, count, generator=generator)
    return {"0.W": first, "0.b": -(inputs.mean(0) @ first), "1.W": second, "1.b": torch.ones(count)}
