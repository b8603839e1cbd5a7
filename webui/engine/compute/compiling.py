"""torch.compile, for who asks for it: faster steps for minutes of waiting at the first picture of each size."""

from __future__ import annotations

import logging
from typing import Any

import torch

_log = logging.getLogger(__name__)


def compile_in_place(network: Any, backend: Any = "inductor") -> None:
    """Have the network compiled at its first call with each set of shapes; its weights may change as before.

    Where that fails (no C++ compiler, no Triton, a driver that is too old) the log says so and it runs as it is.
    """
    network.compile(dynamic=False, backend=backend)
    compiled = network._compiled_call_impl

    def call(*args: Any, **named: Any) -> Any:
        try:
            return compiled(*args, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            _log.warning("The UNet could not be compiled (%s); it runs as it is.", first)
        network._compiled_call_impl = None
        return network(*args, **named)

    network._compiled_call_impl = call
