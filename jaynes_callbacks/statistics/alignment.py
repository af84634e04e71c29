"""Alignment of tangent kernels with labels: kernels of layers, and the angle to the labels'.

The tangent kernel of a layer with parameters θ, whose network has outputs f_c, on samples n and m:

    K(n, m) = Σ_c ⟨∂f_c(n)/∂θ, ∂f_c(m)/∂θ⟩

A layer z_p = W a_p + b is applied at one or several places p of a sample: positions of a sequence,
or of a map (a convolution, whose a_p are the patches of its input), and several calls.  With
G_p = ∂f_c/∂z_p the gradient of one sample is Σ_p G_p a_pᵀ (W) and Σ_p G_p (b).  So

    K(n, m) = Σ_c Σ_p Σ_q (a_np · a_mq + 1) (G_np · G_mq)

which for a single place is (A Aᵀ + 1) ∘ Σ_c G_c G_cᵀ.  Summing over pairs of places, or forming the
gradients and multiplying them, gives the same; `input_gram` tells which takes less.

The centred alignment of two kernels (C. Cortes, M. Mohri, A. Rostamizadeh, Algorithms for learning
kernels based on centered alignment, JMLR 13, 2012) is the cosine of the angle between them once the
means of rows and columns are taken off:

    A(K, Q) = ⟨HKH, HQH⟩ / (‖HKH‖ ‖HQH‖),    H = 1 − 1/N

If labels have nothing to do with the inputs, all orders of theirs are as likely.  The mean of HQH
over the orders is H tr(HQH)/(N − 1), and so the alignment's is exactly (`chance_alignment`)

    tr(HKH) tr(HQH) / ((N − 1) ‖HKH‖ ‖HQH‖) = √(r_K r_Q) / (N − 1),    r = tr² / ‖·‖²

with r the number of directions of a kernel: C − 1 of C classes of equal size, up to N − 1 of the
inputs.  So it is up to √((C − 1)/(N − 1)).

The alignment of a layer's tangent kernel with Y Yᵀ is what A. Baratin et al. (Implicit
regularization via neural feature alignment, AISTATS 2021) look at along depth, and Y. Lou et al.
(Feature learning and signal propagation in deep neural networks, ICML 2022) derive a maximum of:
see `predicted_depth`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

__all__ = [
    "AlignmentStatus",
    "Call",
    "Places",
    "add_kernel_",
    "centred_alignment",
    "chance_alignment",
    "input_gram",
    "label_kernel",
    "predicted_depth",
    "random_outputs",
]

#: Most values of the gradients, or of the products of pairs of places, that are in memory at once.
_CHUNK = 1 << 24
#: Sums of squares below so much of what was subtracted to get them are rounding errors.
_ROUNDING = 1e-12


class AlignmentStatus(IntEnum):
    """Whether a layer's alignment is known; a record's status column shows its `reason`."""

    OK = 0
    NO_PROBES = 1
    NO_LABELS = 2
    LABELS_EQUAL = 3
    LABELS_UNFIT = 4
    PLACES = 5
    FAILED = 6
    NO_LAYERS = 7
    DEPENDENT = 8
    CONSTANT = 9

    @property
    def reason(self) -> str:
        """Describe what is missing, and why, in one phrase."""
        return _REASONS[self]


_REASONS = {
    AlignmentStatus.OK: "ok",
    AlignmentStatus.NO_PROBES: "no samples: give probes=(inputs, labels)",
    AlignmentStatus.NO_LABELS: "no labels: give probes=(inputs, labels)",
    AlignmentStatus.LABELS_EQUAL: "all labels are equal: give probes=(inputs, labels)",
    AlignmentStatus.LABELS_UNFIT: "not one label, or one row of them, for each sample: give "
    "probes=(inputs, labels)",
    AlignmentStatus.PLACES: "the outputs are not [samples, classes]: give forward=",
    AlignmentStatus.FAILED: "the extra forward failed",
    AlignmentStatus.NO_LAYERS: "no layer can be measured",
    AlignmentStatus.DEPENDENT: "gradients of one sample reach others: the layer or the model mixes "
    "samples",
    AlignmentStatus.CONSTANT: "the kernel is constant: the outputs do not depend on the layer, or "
    "are not finite",
}


# Kernels ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """What a layer is applied to in one call, on all samples.

    Attributes:
        windows: ``[samples, groups, *places, *inputs]``: a view where it can be, for the patches of
            a convolution are many times its input.
        dims: how many dimensions the places have.
    """

    windows: Shaped[Tensor, "samples groups *places_and_inputs"]
    dims: int = 1

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.windows.shape[0]

    @property
    def groups(self) -> int:
        """Number of groups of channels, each with weights of its own."""
        return self.windows.shape[1]

    @property
    def places(self) -> int:
        """Number of places of a sample."""
        return prod(self.windows.shape[2 : 2 + self.dims])

    @property
    def inputs(self) -> int:
        """Number of inputs of one output at one place."""
        return prod(self.windows.shape[2 + self.dims :])

    def values(
        self, samples: slice = slice(None), groups: slice = slice(None)
    ) -> Shaped[Tensor, "some_samples some_groups places inputs"]:
        """Return the inputs of some samples and groups, copied if they lie in windows."""
        chosen = self.windows[samples, groups]
        return chosen.reshape(*chosen.shape[:2], self.places, self.inputs)


class Call(NamedTuple):
    """One call of a layer: what it was applied to, and what comes back from one output.

    Attributes:
        places: its input.
        gradients: of an output of the network with respect to what the call returned.
    """

    places: Places
    gradients: Shaped[Tensor, "samples groups places outputs"]


def input_gram(places: Places, limit: int) -> Shaped[Tensor, "rows rows"] | None:
    """Return all products of two places' inputs, ``[samples · places]²``; None if not worth it.

    With them a kernel takes N²P² multiplications for each output of the layer, without them
    N P I for its gradients and N² I for their products.

    Args:
        places: of the layer's only call.
        limit: most products that may be kept.
    """
    samples, number, inputs = places.samples, places.places, places.inputs
    if places.groups > 1 or (samples * number) ** 2 > limit:
        return None
    if samples * number**2 > inputs * (number + samples):
        return None
    flat = places.values().reshape(samples * number, inputs)
    return flat @ flat.mT


def add_kernel_(
    kernel: Float64[Tensor, "samples samples"],
    calls: Sequence[Call],
    *,
    weight: bool = True,
    bias: bool = True,
    gram: Shaped[Tensor, "rows rows"] | None = None,
) -> None:
    """Add the part of a layer's tangent kernel that one output of the network has.

    Args:
        kernel: so far.
        calls: of the layer, which share its parameters.
        weight: whether the weight counts as a parameter.
        bias: whether there is a bias that does.
        gram: `input_gram` of a single call; None to form the gradients of each sample.

    Example:
        >>> import torch
        >>> a, g = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])
        >>> kernel = torch.zeros(2, 2, dtype=torch.float64)
        >>> add_kernel_(kernel, [Call(Places(a[:, None, None]), g[:, None, None])])
        >>> kernel  # (a·a' + 1) g·g'
        tensor([[ 18.,  45.],
                [ 45., 125.]], dtype=torch.float64)
    """
    if bias:
        summed = torch.stack([call.gradients.sum(2).flatten(1) for call in calls]).sum(0)
        kernel += summed @ summed.mT
    if not weight:
        return
    if gram is None:
        for part in _weight_gradients(calls):
            kernel += part @ part.mT
        return
    samples, _, places, _ = calls[0].gradients.shape
    flat = calls[0].gradients.reshape(samples * places, -1)
    for rows in _slices(samples, places * samples * places):
        chosen = slice(rows.start * places, rows.stop * places)
        products = gram[chosen] * (flat[chosen] @ flat.mT)
        kernel[rows] += products.view(-1, places, samples, places).sum((1, 3))


def _weight_gradients(calls: Sequence[Call]) -> Iterator[Shaped[Tensor, "samples weights"]]:
    """Yield each sample's gradient of the weight, for some outputs or groups at a time."""
    samples, groups, _, outputs = calls[0].gradients.shape
    inputs = calls[0].places.inputs
    whole = [slice(None)]
    by_group = _slices(groups, samples * outputs * inputs) if groups > 1 else whole
    by_output = whole if groups > 1 else list(_slices(outputs, samples * inputs))
    for of_groups in by_group:
        for of_outputs in by_output:
            parts = [_gradients_of(call, of_groups, of_outputs) for call in calls]
            yield torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _gradients_of(
    call: Call, groups: slice, outputs: slice
) -> Shaped[Tensor, "samples some_weights"]:
    """Sum the outer products of gradients and inputs over the places."""
    gradients = call.gradients[:, groups, :, outputs].mT
    places = call.places
    size = gradients.shape[1] * places.places * places.inputs
    # The patches of a convolution are copied here, of some samples at a time.
    parts = [
        (gradients[block] @ places.values(block, groups)).flatten(1)
        for block in _slices(places.samples, size)
    ]
    return torch.cat(parts)


def _slices(number: int, size: int) -> Iterator[slice]:
    """Cut so many things into parts of at most `_CHUNK` values.

    Args:
        number: of the things.
        size: values of one.
    """
    step = max(1, _CHUNK // max(1, size))
    return (slice(start, min(start + step, number)) for start in range(0, number, step))


# Alignment ----------------------------------------------------------------------------------


def label_kernel(labels: Shaped[Tensor, "samples *labels"]) -> Float64[Tensor, "samples samples"]:
    """Return Y Yᵀ: of class labels Y has one column for each class; else it is the labels.

    Args:
        labels: integers ``[samples]`` are classes; anything else is taken as it is.

    Example:
        >>> import torch
        >>> label_kernel(torch.tensor([2, 0, 2]))
        tensor([[1., 0., 1.],
                [0., 1., 0.],
                [1., 0., 1.]], dtype=torch.float64)
    """
    if labels.dim() == 1 and not labels.is_floating_point():
        return (labels[:, None] == labels).double()
    flat = labels.reshape(len(labels), -1).double()
    return flat @ flat.mT


def centred_alignment(
    kernels: Float[Tensor, "*layers samples samples"], other: Float[Tensor, "samples samples"]
) -> Float64[Tensor, "*layers"]:
    """Return the cosine of the angle between centred kernels; nan where one is constant.

    Args:
        kernels: symmetric, of any number of layers.
        other: symmetric, on the same samples.

    Example:
        >>> import torch
        >>> labels = label_kernel(torch.tensor([0, 0, 1]))
        >>> centred_alignment(torch.stack([labels, torch.eye(3), torch.ones(3, 3)]), labels)
        tensor([1.0000, 0.7071,    nan], dtype=torch.float64)
    """
    one, two = _centred(kernels), _centred(other)
    product = (one * two).sum((-2, -1))
    return product / (_norm(one, kernels) * _norm(two, other))


def chance_alignment(
    kernels: Float[Tensor, "*layers samples samples"], other: Float[Tensor, "samples samples"]
) -> Float64[Tensor, "*layers"]:
    """Return the mean of `centred_alignment` over all orders of the samples of one kernel.

    Args:
        kernels: symmetric, of any number of layers.
        other: symmetric, on as many samples; of the labels.

    Example:
        >>> labels = label_kernel(torch.tensor([0, 0, 1]))
        >>> chance_alignment(torch.stack([labels, torch.eye(3), torch.ones(3, 3)]), labels)
        tensor([0.5000, 0.7071,    nan], dtype=torch.float64)
    """
    one, two = _centred(kernels), _centred(other)
    traces = [each.diagonal(dim1=-2, dim2=-1).sum(-1) for each in (one, two)]
    norms = _norm(one, kernels) * _norm(two, other)
    return traces[0] * traces[1] / ((other.shape[-1] - 1) * norms)


def _centred(kernel: Float[Tensor, "*layers samples samples"]) -> Float64[Tensor, "*layers s s"]:
    kernel = kernel.double()
    rows = kernel.mean(-1, keepdim=True)
    return kernel - rows - rows.mT + rows.mean(-2, keepdim=True)


def _norm(
    centred: Float[Tensor, "*layers s s"], kernel: Float[Tensor, "*layers s s"]
) -> Float64[Tensor, "*layers"]:
    """Return the norm of a centred kernel; nan where nothing but rounding is left of it."""
    norm = centred.square().sum((-2, -1))
    whole = kernel.double().square().sum((-2, -1))
    return torch.where(norm > _ROUNDING**2 * whole, norm.sqrt(), torch.nan)


def predicted_depth(layers: int) -> float:
    """Return the depth at which the alignment is largest by the Equilibrium Hypothesis, L^{3/5}.

    There a layer is as well informed of the inputs, by the forward pass, as of the labels, by the
    backward pass; derived for wide networks of ReLUs at the edge of chaos (Lou et al. 2022).

    >>> round(predicted_depth(10), 2)
    3.98
    """
    return float(layers**0.6)


def random_outputs(
    outputs: int, kept: int, generator: torch.Generator
) -> Float64[Tensor, "outputs kept"]:
    """Return orthonormal directions times √(outputs/kept), on which many outputs are projected.

    With P the matrix returned, E[P Pᵀ] = 1, so that the kernel of the projections f P has the
    expectation of that of the outputs.  The relative standard deviation of an entry of a kernel is
    about √(2/kept) (1 − kept/outputs)^½ where its gradients have the same length for all outputs,
    and that of a sum over many pairs of samples, as in an alignment, much smaller.

    Args:
        outputs: how many there are.
        kept: how many directions.
        generator: of the CPU.
    """
    draws = torch.randn(outputs, kept, generator=generator, dtype=torch.float64)
    directions: Tensor = torch.linalg.qr(draws).Q
    return directions * sqrt(outputs / kept)
