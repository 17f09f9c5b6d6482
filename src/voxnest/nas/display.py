"""What a search shows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as L

from voxnest.training.logs import WIDE, Display

if TYPE_CHECKING:
    from voxnest.nas.config import SearchConfig
    from voxnest.nas.control import SearchControl


class SearchDisplay(Display):
    """A summary at the start, then a bar on a terminal, or a line for each log elsewhere.

    Args:
        config: of the search.
        control: knows how far it is, and the values.
        console: where to.
    """

    def __init__(self, config: SearchConfig, control: SearchControl, console: Any) -> None:
        super().__init__(config, control, control, console)  # type: ignore[arg-type]

    def _show(self, trainer: L.Trainer) -> None:
        control: SearchControl = self.control  # type: ignore[assignment]
        if not self._enabled or (self._progress is None and control.logged == self._printed):
            return
        values, parts = control.latest, [f"step {trainer.global_step}/{control.limits.steps}"]
        if values:
            parts += [f"loss {values['loss']:.3f}", f"weights {values['weight_loss']:.3f}"]
            parts.append(f"entropy {next(v for k, v in values.items() if k.startswith('entropy_normal')):.3f}")
            if self._progress is None or self.console.width >= WIDE:
                parts.append(f"temperature {values['temperature']:.2f}")
        if self._progress is not None:
            self._move(control.fraction, " · ".join(parts))
        else:
            self.console.print(f"{control.fraction:4.0%}  " + " · ".join(parts), highlight=False)
            self._printed = control.logged

    def _summary(self, trainer: L.Trainer, module: Any) -> dict[str, str]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        config: Any = self.config
        model, options = config.model, config.trainer
        parameters = sum(parameter.numel() for parameter in module.supernet.parameters())
        prices = ", ".join(f"{weight:g}" for weight in config.cost.weights)
        minutes = f" or {options.max_minutes:g} min" if options.max_minutes else ""
        return {
            "supernet": f"space {model.space} · {model.layers} layers · {model.channels} channels · "
            f"{parameters / 1e6:.2f} M parameters",
            "corpus": f"{len(data.crops.speakers):,} speakers · {data.utterances:,} utterances · {data.hours:.1f} h",
            "search": f"{options.max_epochs} epochs{minutes} · {config.crops.batch_size} crops of "
            f"{config.crops.duration:g} s a step · cost {prices}",
            "device": f"{module.device.type.upper()} · precision {trainer.precision.removesuffix('-true')}",
            "run folder": str(config.output),
        }
