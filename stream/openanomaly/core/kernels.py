"""Compiling loops for the hottest paths, with the extra `fast`; the one file that imports numba.

Every compiled function (`*_compiled.py`, `compiled.py`, `compiled/`) has a numpy twin beside its caller,
which does the same and is used where numba is not installed and while it compiles: `ready()` says which,
and `WINDOWS.ready()` for those of window workers. Compiling takes seconds, in a thread (`warm_up`), and
is cached on disk where there is a place to write.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_SETTLED = threading.Event()
SWITCH = "OPENANOMALY_COMPILED"
"""Environment variable; 0 leaves numba alone."""

try:
    import numba
    from numba.core import types
    from numba.extending import intrinsic
except ImportError:
    numba = None


class Stage:
    """Functions that are compiled together, and from then on used."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: list[Callable[[], None]] = []
        self._is_ready = threading.Event()

    def ready(self) -> bool:
        """Whether the functions may be called."""
        return self._is_ready.is_set()

    def compiles(self, call: Callable[[], None]) -> Callable[[], None]:
        """Decorator of what calls every function of its module with each type that it will have."""
        self._calls.append(call)
        return call

    def compile(self) -> None:
        if self.ready():
            return
        try:
            for call in self._calls:
                call()
        except Exception:  # whatever is wrong with a compiler, the numpy twins do the work
            log.exception("numba cannot compile; the uncompiled functions of %s stay in use", self._name)
        else:
            self._is_ready.set()
            log.info("compiled functions of %s are in use", self._name)


REQUESTS, WINDOWS = Stage("the receiver"), Stage("windows")
compiles = REQUESTS.compiles


def ready() -> bool:
    """Whether the functions of the receiver may be called."""
    return REQUESTS.ready()


def settled() -> bool:
    """Whether `ready` stays what it is: a receiver knows series by another hash afterwards."""
    return _SETTLED.is_set()


def warm_up() -> None:
    """Compile everything, if numba is there, the receiver's functions first; returns when that is done."""
    is_wanted = numba is not None and os.environ.get(SWITCH) != "0"
    if is_wanted:
        REQUESTS.compile()
    _SETTLED.set()
    if is_wanted:
        WINDOWS.compile()


def warm_up_windows() -> None:
    """Compile the functions of window workers alone, if numba is there."""
    if numba is not None and os.environ.get(SWITCH) != "0":
        WINDOWS.compile()


def warm_up_aside() -> None:
    """`warm_up` in a thread of its own."""
    threading.Thread(target=warm_up, name="openanomaly-compile", daemon=True).start()


def jit(**options: Any) -> Callable[[Any], Any]:
    """Decorator of a function to compile; as it is where numba is not installed."""

    def decorate(function: Any) -> Any:
        if numba is None:
            return function
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # nowhere to keep the cache
            return numba.njit(nogil=True, **options)(function)

    return decorate


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A copy as arrays are that stand in a record: to numba they have another type."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy: in one piece and writable, the one type that functions are compiled for."""
    return array if array.flags.c_contiguous and array.flags.writeable else array.copy()


if numba is not None:

    @intrinsic
    def word(context: Any, data: Any, at: Any) -> Any:
        """Eight bytes of `data` from `at` on, little-endian, wherever they lie."""
        signature = types.uint64(data, types.intp)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.gep(array.data, [arguments[1]])
            number = context.get_value_type(types.uint64)
            loaded = builder.load(builder.bitcast(address, number.as_pointer()))
            loaded.align = 1
            return loaded

        return signature, generate

    @intrinsic
    def bits_of(context: Any, number: Any) -> Any:
        """The bits of a float32 as uint32."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

        return types.uint32(types.float32), generate

    @intrinsic
    def of_bits(context: Any, bits: Any) -> Any:
        """The float32 of these bits."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(types.float32))

        return types.float32(types.uint32), generate

    @intrinsic
    def put_word(context: Any, data: Any, at: Any, word: Any) -> Any:
        """Write eight bytes into `data` from `at` on, little-endian, wherever they lie."""
        signature = types.void(data, types.intp, types.uint64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.gep(array.data, [arguments[1]])
            number = context.get_value_type(types.uint64)
            builder.store(arguments[2], builder.bitcast(address, number.as_pointer()), align=1)
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def fold(context: Any, a: Any, b: Any) -> Any:
        """Both halves of the 128-bit product, xored."""
        signature = types.uint64(types.uint64, types.uint64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            half = context.get_value_type(types.uint64)
            whole = type(half)(128)
            product = builder.mul(*(builder.zext(a, whole) for a in arguments))
            high = builder.trunc(builder.lshr(product, whole(64)), half)
            return builder.xor(high, builder.trunc(product, half))

        return signature, generate
