"""The peer an expert would pick: `jax.vmap` over networks, `jax.lax.scan` over steps. `jax_peer.py` starts it, with a
Python that has JAX, which this project does not need.

    python jax_program.py pictures.npz --width 4 --runs 64 --convolution patches --steps 64

It compiles, prints a line of JSON with the seconds of that, and then answers every line of its input: a number of
seconds with a rate in model-steps a second, measured for about that long; "accuracy" with the mean accuracy on test
pictures.
"""

import argparse
import json
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BATCH, RATE = 16, 0.05
"""Pictures of a batch, and the learning rate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures")
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--convolution", choices=CONVOLUTIONS, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of a scan")
    given = parser.parse_args()
    data = np.load(given.pictures)
    train, test = ((scaled(data[f"{part}_x"]), jnp.asarray(data[f"{part}_y"])) for part in ("train", "test"))
    convolution, keys = CONVOLUTIONS[given.convolution], jax.random.split(jax.random.key(0), 2)
    networks = jax.vmap(partial(initial, width=given.width))(jax.random.split(keys[0], given.runs))
    started = time.perf_counter()
    scan = (
        jax.jit(partial(steps, convolution, given.steps), donate_argnums=0).lower(networks, keys[1], *train).compile()
    )
    print(json.dumps({"jax": jax.__version__, "compiled": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        if line.strip() == "accuracy":
            accuracy = jax.jit(jax.vmap(partial(right, convolution), (0, None, None)))(networks, *test)
            print(float(accuracy.mean()), flush=True)
            continue
        begun, done = time.perf_counter(), 0
        while not done or time.perf_counter() - begun < float(line):
            keys = jax.random.split(keys[0], 2)
            networks = jax.block_until_ready(scan(networks, keys[1], *train))
            done += given.steps
        print(given.runs * done / (time.perf_counter() - begun), flush=True)


def scaled(pictures: np.ndarray) -> jax.Array:
    """Pictures [n, 28, 28, 1] as the networks see them, in float32."""
    return jnp.asarray(pictures.reshape(-1, 28, 28, 1), jnp.float32) / 255 - 0.5


def initial(key: jax.Array, width: int) -> dict[str, jax.Array]:
    """Weights of truncated normals, sigma 0.1, and biases of 0."""
    shapes = {"conv1": (5, 5, 1, width), "conv2": (5, 5, width, width), "hidden": (49 * width, 64), "output": (64, 10)}
    found = {}
    for own, (name, shape) in zip(jax.random.split(key, 4), shapes.items(), strict=True):
        found[name] = 0.1 * jax.random.truncated_normal(own, -2, 2, shape)
        found[f"{name} bias"] = jnp.zeros(shape[-1])
    return found


def own_convolution(x: jax.Array, weight: jax.Array) -> jax.Array:
    """XLA's own, 5 x 5 with stride 2; over networks it becomes one with groups."""
    return lax.conv_general_dilated(x, weight, (2, 2), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


def patches_product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """A matrix product of the patches under the filter, which 25 slices make."""
    side = x.shape[1] // 2
    padded = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    slices = [padded[:, i : i + 2 * side - 1 : 2, j : j + 2 * side - 1 : 2] for i in range(5) for j in range(5)]
    return jnp.concatenate(slices, axis=-1) @ weight.reshape(-1, weight.shape[-1])


CONVOLUTIONS = {"grouped": own_convolution, "patches": patches_product}


def logits(convolution, network, x):  # type: ignore[no-untyped-def]
    x = jax.nn.relu(convolution(x, network["conv1"]) + network["conv1 bias"])
    x = jax.nn.relu(convolution(x, network["conv2"]) + network["conv2 bias"])
    x = jax.nn.relu(x.reshape(len(x), -1) @ network["hidden"] + network["hidden bias"])
    return x @ network["output"] + network["output bias"]


def loss(convolution, network, x, y):  # type: ignore[no-untyped-def]
    scores = jax.nn.log_softmax(logits(convolution, network, x))
    return -jnp.take_along_axis(scores, y[:, None], axis=1).mean()


def right(convolution, network, x, y):  # type: ignore[no-untyped-def]
    return (logits(convolution, network, x).argmax(1) == y).mean()


def steps(convolution, count, networks, key, x, y):  # type: ignore[no-untyped-def]
    """All networks after `count` steps of plain SGD, each on batches of its own, gathered on the device."""
    runs = len(networks["output bias"])
    order = jax.random.randint(key, (count, runs, BATCH), 0, len(y))

    def one(network, chosen):  # type: ignore[no-untyped-def]
        gradients = jax.grad(partial(loss, convolution))(network, x[chosen], y[chosen])
        return jax.tree.map(lambda value, gradient: value - RATE * gradient, network, gradients)

    def step(networks, chosen):  # type: ignore[no-untyped-def]
        return jax.vmap(one)(networks, chosen), None

    return lax.scan(step, networks, order)[0]


if __name__ == "__main__":
    main()
