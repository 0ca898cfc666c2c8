"""See every PyTorch function that is called inside a block.

class Watch(Interception):
    def call(self, func, args, kwargs):
        print(func.__name__)
        return func(*args, **kwargs)
"""

from collections.abc import Callable, Sequence

from torch.overrides import TorchFunctionMode


class Interception(TorchFunctionMode):
    """A context in which `call` stands in for each PyTorch function."""

    def call(self, func: Callable, args: tuple, kwargs: dict[str, object]) -> object:
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: tuple = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        return self.call(func, args, kwargs or {})
