"""What the closed forms of dataset attributions multiply at least, by kind of edge: the yardstick of dataset.py.

Multiply-adds for a batch of P tokens in rows of S, C components a matrix, h heads of width e, h e = d, MLPs n wide. A
share `rows` of (token, target) pairs counts; R = rows P C of them a matrix, over s = (S + 1) / 2 keys on average:

    activations   P C (in + out) a matrix
    embeddings    P d C a matrix that reads the stream
    stream        products P C² a pair of a reader and an earlier writer; products = 3 with norms held, one a metric;
                  7 with live norms: 2, 2 and 3. Into the unembedding's d coordinates: attr alone, 1 or 2 of P d C
    v -> o        R h s C: the patterns' row times the sources, for all metrics at once
    q -> o        R (h s (1 + e) + d C), and P d C for what a unit of attention adds to each target
    k -> o        R h s C, and P s d C for what each component adds to each score
    gate, up -> down   R n C each

What depends on weights alone is left out, and so are the forward pass and everything elementwise. A yardstick and no
law: stream products are counted dense, so where importances are sparse less would do.
"""

from dataset_model import Shape


def multiply_adds(shape: Shape, rows: float, *, live: bool) -> dict[str, float]:
    """Multiply-adds of a batch, by kind of edge.

    Args:
        shape: sizes.
        rows: the share of (token, target) pairs that count: the density where targets are weighted, else 1.
        live: norms move, as the peer's do.
    """
    d, n, h, C, P = shape.d_model, shape.hidden, shape.heads, shape.components, shape.tokens
    keys, counted = (shape.length + 1) / 2, rows * P * C
    products, signed = (7, 2) if live else (3, 1)
    attention = h * keys * (1 + d / h) + d * C + 2 * h * keys * C
    return {
        "activations": shape.layers * P * C * (8 * d + 3 * (d + n)),
        "embeddings": 5 * shape.layers * P * d * C,
        "stream": products * reading_pairs(shape.layers) * P * C**2 + signed * 2 * shape.layers * P * d * C,
        "attention": shape.layers * (counted * attention + P * d * C * (1 + keys)),
        "pointwise": shape.layers * counted * 2 * n * C,
    }


def reading_pairs(layers: int) -> int:
    """Pairs of a matrix that reads the stream and a matrix that wrote to it before."""
    return sum(3 * 2 * layer + 2 * (2 * layer + 1) for layer in range(layers))


def bound_flops(shape: Shape, rows: float, *, live: bool) -> float:
    """Floating-point operations of a batch."""
    return 2 * sum(multiply_adds(shape, rows, live=live).values())
