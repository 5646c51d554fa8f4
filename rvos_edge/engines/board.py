"""Named tensors owned by a backend: allocated once, written in place, swapped by pointer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.manifest import TensorSpec


class Buffer(Protocol):
    """One tensor's memory, on the host or on a device. Compared and hashed by identity."""

    @property
    def dtype(self) -> str:
        """NumPy name of the element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""

    @property
    def address(self) -> int:
        """Address of the data on the device of the backend."""

    def write(self, array: NDArray[Any]) -> None:
        """Copy ``array`` (of this shape; its dtype may be wider) into the buffer."""

    def read(self) -> NDArray[Any]:
        """The contents: a read-only view where the buffer is host memory, else a copy."""

    def zero(self) -> None:
        """Fill with zeros."""

    def copy_from(self, other: Any) -> None:
        """Copy a buffer of the same backend, dtype and shape into this one, on the backend's device."""


B = TypeVar("B", bound=Buffer)


class Board(Generic[B]):
    """The slots that join the graphs: an output feeds the input of the same name.

    A slot is a name, a buffer is memory; ``swap`` exchanges the buffers of two slots. Extents may be symbolic ("Q"
    queries): ``resize`` gives a symbol its extent and reallocates the slots that use it. Nothing else allocates.
    """

    def __init__(self, allocate: Callable[[str, tuple[int, ...]], B]) -> None:
        """Create an empty board; ``allocate(dtype, shape)`` returns a zeroed buffer of the backend."""
        self._allocate = allocate
        self._specs: dict[str, TensorSpec] = {}
        self._buffers: dict[str, B] = {}
        self._extents: dict[str, int] = {}

    def declare(self, spec: TensorSpec) -> None:
        """Create a zeroed slot; declaring the same slot again changes nothing. A new symbol has extent 1.

        Raises:
            UserError: There is not enough memory.
            ValueError: A slot of that name has another dtype or shape.
        """
        known = self._specs.setdefault(spec.name, spec)
        if known != spec:
            raise ValueError(f"slot '{spec.name}' is {known} and cannot become {spec}")
        if spec.name not in self._buffers:
            self._buffers[spec.name] = self._new(spec)

    def resize(self, symbol: str, extent: int) -> None:
        """Give ``symbol`` an extent; slots that use it are reallocated, zeroed, when it changes."""
        if self._extents.get(symbol, 1) == extent:
            return
        self._extents[symbol] = extent
        for spec in self._specs.values():
            if symbol in spec.shape:
                self._buffers[spec.name] = self._new(spec)

    def swap(self, first: str, second: str) -> None:
        """Exchange the buffers of two slots of equal dtype and shape."""
        a, b = self._buffers[first], self._buffers[second]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            raise ValueError(f"slots '{first}' {a.dtype}{a.shape} and '{second}' {b.dtype}{b.shape} cannot swap")
        self._buffers[first], self._buffers[second] = b, a

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Copy an array into a slot.

        Raises:
            ValueError: The shape differs.
            TypeError: The array's kind does not fit the slot's dtype.
        """
        buffer = self._buffers[name]
        if array.shape != buffer.shape:
            raise ValueError(f"slot '{name}' has shape {buffer.shape}, not {array.shape}")
        buffer.write(array)

    def read(self, name: str) -> NDArray[Any]:
        """Return the contents of a slot, valid until the next run, write or swap; copy what must outlive it."""
        return self._buffers[name].read()

    def zero(self, name: str) -> None:
        """Fill a slot with zeros."""
        self._buffers[name].zero()

    def copy(self, source: str, target: str) -> None:
        """Copy the contents of one slot into another of equal dtype and shape, without leaving the device."""
        self._buffers[target].copy_from(self._buffers[source])

    def arrangement(self) -> dict[str, B]:
        """Return the buffer that each slot holds; swaps change this."""
        return dict(self._buffers)

    def arrange(self, arrangement: Mapping[str, B]) -> None:
        """Restore an arrangement: give each slot the buffer that it held then."""
        self._buffers.update(arrangement)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the current shape of a slot."""
        return self._buffers[name].shape

    def address(self, name: str) -> int:
        """Return the address of the buffer that a slot holds now."""
        return self._buffers[name].address

    def buffer(self, name: str) -> B:
        """Return the buffer that a slot holds now; for the graphs of the backend."""
        return self._buffers[name]

    def buffers(self) -> set[B]:
        """Return all live buffers; bindings to any other buffer are stale."""
        return set(self._buffers.values())

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    def _new(self, spec: TensorSpec) -> B:
        shape = tuple(self._extents.get(dim, 1) if isinstance(dim, str) else dim for dim in spec.shape)
        try:
            return self._allocate(spec.dtype, shape)
        except MemoryError as error:
            raise UserError(
                f"there is not enough memory for tensor '{spec.name}' {list(shape)}; use fewer queries."
            ) from error
