"""Train an adapter: freeze an encoder, give its layers changes to learn, and tell the two apart again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxnest.errors import ConfigError
from voxnest.hub.checkpoint import load_encoder
from voxnest.models.adapters import Adapter
from voxnest.models.embedding import base_digest
from voxnest.models.exits import named_thresholds
from voxnest.models.low_rank import add_changes, changes, find_targets, make_plain

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder
    from voxnest.training.config import TrainingConfig

_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


def base_of(source: str) -> SpeakerEncoder:
    """The encoder of `init_from` as it is, ready to be trained."""
    return load_encoder(source).train()


class AdapterTraining:
    """What is learnt of an encoder when it is an adapter; the encoder gets its changes here.

    Args:
        encoder: with the weights of `init_from`.
        config: of the run, with `adapter`.

    Raises:
        ConfigError: `model` describes another encoder than `init_from`, or no layer is a target.
        CheckpointError: `init_from` cannot be read.
    """

    def __init__(self, encoder: SpeakerEncoder, config: TrainingConfig) -> None:
        assert config.adapter is not None
        assert config.init_from is not None
        self.encoder, self.options, self.name = encoder, config.adapter, encoder.name
        self.base = base_digest(encoder)
        if self.base != base_digest(load_encoder(config.init_from)):
            expected = "no settings of `model`: it is that of init_from"
            raise ConfigError("model", f"not the encoder of {config.init_from}, which the adapter is for", expected)
        options = self.options
        targets = find_targets(encoder, options.targets, options.rank, head=not options.train_head)
        if options.train_head:
            targets = [name for name in targets if not name.startswith("head.")]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            add_changes(encoder, targets, options.rank, options.alpha)
        for _, module in self._whole():
            module.requires_grad_(True)

    def _whole(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules that learn as a whole, not by a change."""
        for name, module in self.encoder.named_modules():
            norm = self.options.train_norms and isinstance(module, _NORMS)
            if norm or (self.options.train_head and name == "head"):
                yield name, module

    def freeze_statistics(self) -> None:
        """Put batch norms that do not learn in evaluation mode; the rest keeps its mode, for masks and dropout."""
        learning = {id(part) for _, module in self._whole() for part in module.modules()}
        for module in self.encoder.modules():
            if isinstance(module, _BatchNorm) and id(module) not in learning:
                module.eval()

    def merged(self) -> SpeakerEncoder:
        """A copy of the encoder with the changes written into its weights."""
        plain = copy.deepcopy(self.encoder)
        make_plain(plain)
        return plain

    def adapter(self, plain: SpeakerEncoder, metadata: dict[str, Any]) -> Adapter:
        """The adapter as it is now.

        Args:
            plain: what `merged` gives now, with thresholds.
            metadata: to tell with it.
        """
        prefixes = tuple(f"{name}." for name, _ in self._whole())
        state = {key: value.detach().cpu() for key, value in plain.state_dict().items()}
        return Adapter(
            base=self.base,
            base_name=self.name,
            pairs=changes(self.encoder),
            scale=self.options.alpha / self.options.rank,
            values={key: value for key, value in state.items() if prefixes and key.startswith(prefixes)},
            settings=self.options.model_dump(),
            thresholds=named_thresholds(plain),
            metadata=metadata,
        )


def adapter_file(folder: Path, name: str) -> Path:
    """Where the adapter lies beside the encoder `name`.safetensors of a run."""
    return folder / f"{name}.adapter.safetensors"
