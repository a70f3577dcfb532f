"""Train a small neural network on 1,797 real handwritten digits and log everything about it, every step.

    pip install 'asynctrack[examples,view]'
    python examples/train_digits.py

Logging 16 metrics at each of 9,000 steps is what one usually does not dare, because it would slow the loop
down. Here a log call writes a few bytes into a memory-mapped file and returns; a background thread brings them to
./mlflow.db, where `asynctrack view` and `mlflow ui` look for them. The last lines say what that cost, and how to look
at the result; `asynctrack view` in another terminal shows it meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has none; comes with scikit-learn

import asynctrack

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass
class Layer:
    """A dense layer with the two running means that Adam keeps for each parameter (weights, then bias)."""

    parameters: list[Array]
    means: list[Array]
    squares: list[Array]

    @classmethod
    def new(cls, inputs: int, outputs: int, rng: np.random.Generator) -> Layer:
        weight = rng.normal(0.0, math.sqrt(2.0 / inputs), (inputs, outputs)).astype(np.float32)
        parameters = [weight, np.zeros(outputs, np.float32)]
        return cls(parameters, [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters])

    def __call__(self, inputs: Array) -> Array:
        weight, bias = self.parameters
        return inputs @ weight + bias


def norm(array: Array) -> float:
    """The Euclidean length of all the array's values."""
    return math.sqrt(float(np.vdot(array, array)))


def forward(layers: list[Layer], images: Array) -> tuple[Array, list[Array]]:
    """The probabilities of the ten digits, and what went into each layer."""
    inputs = [images]
    for layer in layers[:-1]:
        inputs.append(np.maximum(layer(inputs[-1]), 0.0))
    scores = layers[-1](inputs[-1])
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True), inputs


def loss_and_accuracy(probabilities: Array, labels: Labels) -> tuple[float, float]:
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(right + 1e-12).mean()), float((probabilities.argmax(axis=1) == labels).mean())


def gradients(layers: list[Layer], probabilities: Array, inputs: list[Array], labels: Labels) -> list[list[Array]]:
    """Each layer's gradient: of its weights and of its bias."""
    error = probabilities.copy()
    error[np.arange(len(labels)), labels] -= 1.0
    error /= len(labels)
    found: list[list[Array]] = []
    for layer, below in zip(reversed(layers), reversed(inputs), strict=True):
        found.append([below.T @ error, error.sum(axis=0)])
        error = (error @ layer.parameters[0].T) * (below > 0.0)
    return found[::-1]


def adam(layer: Layer, gradient: list[Array], rate: float, step: int, decay: float) -> float:
    """Take one AdamW step; how far the weights moved."""
    moved = 0.0
    for i, slope in enumerate(gradient):
        layer.means[i] += 0.1 * (slope - layer.means[i])
        layer.squares[i] += 0.001 * (slope * slope - layer.squares[i])
        mean, square = layer.means[i] / (1 - 0.9**step), layer.squares[i] / (1 - 0.999**step)
        update = rate * (mean / (np.sqrt(square) + 1e-8) + (decay if i == 0 else 0.0) * layer.parameters[i])
        layer.parameters[i] -= update.astype(np.float32)
        moved += norm(update) ** 2
    return math.sqrt(moved)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A straight warm-up over the first twentieth, then half a cosine down to zero."""
    warm_up = max(steps // 20, 1)
    if step <= warm_up:
        return peak * step / warm_up
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


@dataclass
class Stopwatch:
    """Adds up the seconds spent in the log calls, and the points they logged."""

    seconds: float = 0.0
    points: int = 0

    def log(self, run: asynctrack.ActiveRun, metrics: dict[str, float], step: int) -> None:
        begun = time.perf_counter()
        run.log_metrics(metrics, step=step)
        self.seconds += time.perf_counter() - begun
        self.points += len(metrics)


def train(run: asynctrack.ActiveRun, options: argparse.Namespace, stopwatch: Stopwatch) -> int:
    """The training loop; the number of steps it took."""
    digits = load_digits()
    images = (digits.data / 16.0).astype(np.float32)
    train_x, val_x, train_y, val_y = train_test_split(
        images, digits.target, test_size=0.2, random_state=options.seed, stratify=digits.target
    )
    rng = np.random.default_rng(options.seed)
    sizes = [64, options.hidden, options.hidden // 2, 10]
    layers = [Layer.new(inputs, outputs, rng) for inputs, outputs in itertools.pairwise(sizes)]
    steps_per_epoch = math.ceil(len(train_x) / options.batch_size)
    steps: int = options.epochs * steps_per_epoch
    run.log_params({"train_images": len(train_x), "val_images": len(val_x), "layers": sizes, "steps": steps})

    step = 0
    for epoch in range(1, options.epochs + 1):
        order = rng.permutation(len(train_x))
        for batch in np.array_split(order, steps_per_epoch):
            step += 1
            rate = learning_rate(step, steps, options.learning_rate)
            probabilities, inputs = forward(layers, train_x[batch])
            loss, accuracy = loss_and_accuracy(probabilities, train_y[batch])
            found = gradients(layers, probabilities, inputs, train_y[batch])

            metrics = {"train/loss": loss, "train/accuracy": accuracy, "train/learning_rate": rate}
            for number, (layer, gradient) in enumerate(zip(layers, found, strict=True), start=1):
                weight_norm = norm(layer.parameters[0])
                metrics[f"grad_norm/layer{number}.weight"] = norm(gradient[0])
                metrics[f"grad_norm/layer{number}.bias"] = norm(gradient[1])
                metrics[f"weight_norm/layer{number}"] = weight_norm
                moved = adam(layer, gradient, rate, step, options.weight_decay)
                # About 1e-3 is healthy; the first plot to look at when a network does not learn.
                metrics[f"update_ratio/layer{number}"] = moved / weight_norm
            metrics["grad_norm/all"] = math.sqrt(sum(norm(g) ** 2 for gradient in found for g in gradient))
            stopwatch.log(run, metrics, step)

        loss, accuracy = loss_and_accuracy(forward(layers, val_x)[0], val_y)
        stopwatch.log(run, {"val/loss": loss, "val/accuracy": accuracy}, step)
        if epoch % max(options.epochs // 10, 1) == 0 or epoch == options.epochs:
            print(f"  epoch {epoch:4d}   step {step:6,d}   val loss {loss:.4f}   val accuracy {accuracy:7.2%}")
    run.set_tag("val_accuracy", f"{accuracy:.4f}")
    return steps


def how_to_open(tracking_uri: str) -> str:
    """The commands that show the run."""
    if tracking_uri == f"sqlite:///{Path.cwd()}/mlflow.db":
        return "See it: asynctrack view (in the terminal: asynctrack top; with MLflow: mlflow ui)"
    shown = shlex.quote(tracking_uri)
    if not tracking_uri.startswith("sqlite:"):
        return f"See it: asynctrack view {shown} (in the terminal: asynctrack top {shown})"
    return f"See it: asynctrack view {shown} (with MLflow: mlflow ui --backend-store-uri {shown})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network on handwritten digits, logging every step.")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=256, help="width of the first hidden layer; the second has half")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracking-uri", help="where to log (default: MLFLOW_TRACKING_URI, else ./mlflow.db)")
    options = parser.parse_args()

    if options.tracking_uri:
        asynctrack.set_tracking_uri(options.tracking_uri)
    asynctrack.set_experiment("digits")

    stopwatch = Stopwatch()
    with asynctrack.start_run(run_name=f"mlp-{options.hidden}", tags={"dataset": "sklearn digits"}) as run:
        run.log_params({name: value for name, value in vars(options).items() if name != "tracking_uri"})
        print(f"Training; run {run.run_id} goes to {run.tracking_uri}")
        begun = time.perf_counter()
        # One thread multiplies matrices this small fastest; several wait for each other, for ages on a busy machine.
        with threadpool_limits(limits=1):
            steps = train(run, options, stopwatch)
        loop = time.perf_counter() - begun
        # Leaving the block delivers everything as well; flushing here only lets the time be measured.
        run.flush()
        flush = time.perf_counter() - begun - loop
        stats = run.stats()

    rate, share = stopwatch.points / loop, stopwatch.seconds / loop
    per_point = stopwatch.seconds / stopwatch.points * 1e6
    print()
    print(f"Logged {stopwatch.points:,} points in {steps:,} steps; with params and tags {stats.accepted:,} events:")
    print(f"{stats.delivered:,} delivered, {stats.pending} pending, {stats.rejected + stats.dropped} lost.")
    print(f"  the loop took    {loop:7.2f} s   {rate:,.0f} events per second")
    print(f"  logging took     {stopwatch.seconds:7.2f} s   {share:.2%} of the loop, {per_point:.2f} µs a point")
    print(f"  the last flush   {flush:7.2f} s   after the loop")
    print()
    print(how_to_open(run.tracking_uri))


if __name__ == "__main__":
    main()
