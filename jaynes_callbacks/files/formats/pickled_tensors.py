"""Describe the tensors in a pickle of PyTorch: where their values are, and under which names.

A pickled tensor is a call of one of PyTorch's functions with a storage, an offset, sizes and
strides.  `MAKERS` and `storage_of` turn these calls into descriptions; `named_tensors` finds them
in nested dictionaries, lists, TorchScript's objects and whole modules that were pickled.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from jaynes_callbacks.files.formats.inert_pickle import Global, Maker, Object, PickleError
from jaynes_callbacks.files.limits import Limits

__all__ = [
    "MAKERS",
    "Broken",
    "Leaf",
    "Named",
    "NoValues",
    "Storage",
    "StoredTensor",
    "dtype_of",
    "named_tensors",
    "storage_of",
]

#: PyTorch's names of typed storages, but for the ending "Storage".
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
#: Deeper values are not searched for tensors.
_DEEPEST = 100
_Place = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes that some tensors share.

    Attributes:
        key: by which the file knows them.
        dtype: of its elements; bytes if the file does not say.
        size: number of elements.
        begin: the first element of it that counts, where it is a view of another one.
    """

    key: str
    dtype: torch.dtype
    size: int
    begin: int = 0


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense tensor.

    Attributes:
        storage: holds its values.
        dtype: of the values.
        offset: of the first value in the storage, in values.
        shape: its shape.
        strides: in values.
        is_negated: whether the values are the stored ones times -1.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_negated: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the values, each on its own."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Number of values in the storage from the first to the last; 0 if there are none."""
        if not prod(self.shape):
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in steps)

    def view_of(self, content: Tensor) -> Tensor:
        """Return the tensor as a view of its storage's bytes.

        Raises:
            ValueError: if it reaches beyond the storage.
        """
        itemsize = self.dtype.itemsize
        begin, end = self.offset * itemsize, (self.offset + self.span) * itemsize
        if end > min(len(content), self.storage.size * self.storage.dtype.itemsize):
            raise ValueError(f"it reaches beyond its storage, which has {len(content):,} bytes")
        if not self.span:
            return torch.empty(self.shape, dtype=self.dtype)
        values = content[begin:end].view(self.dtype).as_strided(self.shape, self.strides)
        return values.neg() if self.is_negated else values


@dataclass(frozen=True, slots=True)
class NoValues:
    """A tensor without one value for each place in the file: sparse, nested, quantised, meta.

    Attributes:
        reason: why its magnitudes cannot be counted.
        shape: its shape, where it is known.
    """

    reason: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """A tensor whose description makes no sense.

    Attributes:
        reason: what is wrong with it.
    """

    reason: str


Leaf = StoredTensor | NoValues | Broken


# From calls to descriptions -----------------------------------------------------------------------


def dtype_of(name: Any) -> torch.dtype | None:
    """Return the data type that a pickle names; None if it names something else."""
    if isinstance(name, Global) and name.module == "torch":
        return _DTYPES.get(name.name)
    return None


def storage_of(key: tuple[Any, ...]) -> Any:
    """Describe the storage of a persistent id ``("storage", type, key, device, size, …)``.

    Of files before PyTorch 1.6 other ids name modules: they stand for the module's class.
    """
    if len(key) >= 2 and key[0] == "module":
        return key[1]
    if len(key) < 5 or key[0] != "storage" or not _is_size(key[4]):
        return Broken("its storage is not described")
    name = key[1].name if isinstance(key[1], Global) else ""
    dtype = _STORAGES.get(name.removesuffix("Storage"))
    if dtype is None:
        return NoValues(f"stored as {name or 'an unknown type'}, not real floating-point")
    view = key[5] if len(key) > 5 else None
    begin = view[1] if isinstance(view, tuple) and len(view) == 3 and _is_size(view[1]) else 0
    return Storage(str(key[2]), dtype, key[4], begin)


def _tensor(arguments: tuple[Any, ...]) -> Any:
    """Describe the call ``(storage, offset, shape, strides, …, backward hooks, metadata)``."""
    metadata = arguments[6] if len(arguments) > 6 else None
    return _described(*arguments[:4], metadata=metadata)


def _typed_tensor(arguments: tuple[Any, ...]) -> Any:
    """Describe the same call with a data type before the metadata."""
    metadata = arguments[7] if len(arguments) > 7 else None
    dtype = dtype_of(arguments[6])
    if dtype is None:
        return Broken("its data type is not described")
    return _described(*arguments[:4], metadata=metadata, dtype=dtype)


def _described(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    *,
    metadata: Any = None,
    dtype: torch.dtype | None = None,
) -> Leaf:
    if isinstance(storage, Broken | NoValues):
        return storage
    sizes_are_whole = _are_sizes(shape) and _are_sizes(strides) and len(shape) == len(strides)
    if not isinstance(storage, Storage) or not _is_size(offset) or not sizes_are_whole:
        return Broken("its storage, shape or strides are not described")
    is_negated = isinstance(metadata, dict) and metadata.get("neg") is True
    offset += storage.begin
    return StoredTensor(
        storage, dtype or storage.dtype, offset, tuple(shape), tuple(strides), is_negated
    )


def _of_type(arguments: tuple[Any, ...]) -> Any:
    """Describe the call ``(function, class, arguments of the function, state)`` of a subclass."""
    function, class_, inner, *_ = arguments
    maker = MAKERS.get(str(function))
    if maker is None or not isinstance(inner, tuple):
        return _wrapper((class_,))
    return maker(inner)


def _wrapper(arguments: tuple[Any, ...]) -> NoValues:
    class_ = arguments[0] if arguments else None
    name = class_.name if isinstance(class_, Global) else "subclass of Tensor"
    return NoValues(f"a {name}, whose values lie in other tensors (quantised, sharded)")


def _sparse(arguments: tuple[Any, ...]) -> NoValues:
    details = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], tuple) else ()
    shapes = [tuple(each) for each in details if _are_sizes(each)]
    shape = shapes[-1] if shapes else ()
    return NoValues("sparse or nested, without one value per place", shape)


def _nested(arguments: tuple[Any, ...]) -> NoValues:
    return NoValues("sparse or nested, without one value per place")


def _quantised(arguments: tuple[Any, ...]) -> NoValues:
    shape = tuple(arguments[2]) if len(arguments) > 2 and _are_sizes(arguments[2]) else ()
    return NoValues("quantised by PyTorch, not real floating-point", shape)


def _meta(arguments: tuple[Any, ...]) -> NoValues:
    shape = tuple(arguments[1]) if len(arguments) > 1 and _are_sizes(arguments[1]) else ()
    return NoValues("on the meta device, without values", shape)


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else Broken("it is a call without arguments")


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else ()


#: What is called in the place of PyTorch's functions that make tensors.
MAKERS: Mapping[str, Maker] = {
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.restore_type_tag": _first,
}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_size, value))


# From descriptions to names -----------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """The tensors of a pickle.

    Attributes:
        leaves: each with the keys under which it is, from the outermost.
        modules: classes of the modules that were searched.
        too_deep: number of values that are nested too deeply to be searched.
    """

    leaves: list[tuple[_Place, Leaf]]
    modules: Counter[str]
    too_deep: int


def named_tensors(content: Any, limits: Limits) -> Named:
    """Find every tensor in nested dictionaries, lists and modules.

    Args:
        content: of a pickle.
        limits: on the number of values and the length of names: shared parts of a pickle are
            searched as often as they are named.

    Raises:
        PickleError: if there are more.
    """
    found, modules, too_deep = Named([], Counter(), 0), Counter[str](), 0
    levels: list[tuple[_Place, Iterator[tuple[object, Any]]]] = [((), iter([(None, content)]))]
    visited = letters = 0
    while levels:
        above, values = levels[-1]
        key, value = next(values, (None, None))
        if value is None and key is None:
            levels.pop()
            continue
        visited += 1
        place = (*above, key) if key is not None else above
        if isinstance(value, Leaf):
            letters += sum(len(str(part)) for part in place)
            found.leaves.append((place or ("tensor",), value))
        elif (inner := _children(value, modules)) is not None:
            if len(levels) < _DEEPEST:
                levels.append((place, inner))
            else:
                too_deep += 1
        if visited > limits.objects // 4 or letters > 4 * limits.text:
            raise PickleError(
                "its parts name each other too often to be searched; raise the bound with "
                "--max-expanded"
            )
    return Named(found.leaves, modules, too_deep)


def _children(value: Any, modules: Counter[str]) -> Iterator[tuple[object, Any]] | None:
    """Iterate over a container's values with their keys; None for what is no container."""
    if isinstance(value, dict):
        return iter(value.items())
    if isinstance(value, list | tuple):
        return iter(enumerate(value))
    if not isinstance(value, Object):
        return None
    attributes = _attributes(value)
    is_script = value.maker is not None and value.maker.module.startswith("__torch__")
    if is_script or {"_parameters", "_modules"} <= set(attributes):
        modules[str(value)] += 1
        if is_script:
            return iter(attributes.items())
        return _module_children(attributes)
    return None if value.items is None else iter(value.items.items())


def _attributes(value: Object) -> Mapping[Any, Any]:
    state = value.state
    if isinstance(state, tuple) and state:
        state = state[0]
    return state if isinstance(state, dict) else {}


def _module_children(attributes: Mapping[Any, Any]) -> Iterator[tuple[object, Any]]:
    for part in ("_parameters", "_buffers", "_modules"):
        inner = attributes.get(part)
        if isinstance(inner, dict):
            yield from inner.items()
