"""What a file or directory of another project holds, in that project's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Description:
    """A reference implementation's model: every reader gives one, `voxnest.foreign.encoders` makes it an encoder.

    Attributes:
        architecture: what `voxnest.hub.convert` calls it.
        config: constructor arguments of the reference's class.
        state: its weights.
        name: what to call the encoder, a name of the registry; None to go by its settings.
        dims: sizes of the embeddings of a Matryoshka head; none where the arguments say the only one.
    """

    architecture: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    name: str | None = None
    dims: tuple[int, ...] = ()
