"""The recipes of configs/: each loads, builds and takes two steps on synthetic voices, at every size it is for."""

from pathlib import Path

import pytest
import torch

from voxnest.corpora.prepare import prepare
from voxnest.hub.checkpoint import DEFAULT_FILE, read_metadata
from voxnest.synthesis.corpus import make_synthetic_corpus
from voxnest.training.criterion import build_criterion
from voxnest.training.module import TrainingModule
from voxnest.training.run import train
from voxnest.training.schedules import dim_weights_at, lr_factor, margin_at
from voxnest.training.settings import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
SIZES = {
    "redimnet": [f"redimnet-b{size}" for size in range(7)],
    "redimnet2": [f"redimnet2-b{size}" for size in range(7)],
    "ecapa-tdnn": ["ecapa-tdnn-512", "ecapa-tdnn-1024"],
}
CHEAP = [
    "crops.duration=0.5", "crops.batch_size=2", "crops.per_epoch=8", "augmentation.noise=[]", "augmentation.rirs=[]",
    "augmentation.noise_kinds=null", "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.val_every_steps=1",
    "trainer.devices=1", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("voices")
    make_synthetic_corpus(folder / "corpus", speakers=5, utterances_per_speaker=2, sessions=1)
    prepare(folder / "corpus", folder / "manifest")
    held_out = "{held_out_speakers: 2, segment: 1.0, segments_per_speaker: 2}"
    return [f"data.train={folder / 'manifest'}", f"data.validation={held_out}"]


@pytest.mark.parametrize(("recipe", "name"), [(recipe, name) for recipe, names in SIZES.items() for name in names])
def test_every_size_of_a_recipe_builds_and_takes_two_steps(recipe: str, name: str) -> None:
    config = load_config(CONFIGS / "recipes" / f"{recipe}.yaml", [f"model.name={name}"])
    module = TrainingModule(config)
    assert module.encoder.name == name
    module.criterion = build_criterion(config.loss, module.encoder.dims, 100)
    optimizer = module.configure_optimizers()
    losses, waveform = [], 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    for fraction in (0.04, 0.5):
        module.criterion.base_loss.margin = margin_at(fraction, config.loss)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * config.optimizer.lr * lr_factor(fraction, config.schedule)
        weights = dim_weights_at(fraction, config.crops.duration, config.loss, module.encoder.dims)
        loss, _ = module.criterion(module.encoder(waveform, all_dims=True), torch.arange(2), weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.tensor(losses).isfinite().all()


def test_recipes_state_what_wespeaker_does() -> None:
    epochs = {}
    for recipe in SIZES:
        config = load_config(CONFIGS / "recipes" / f"{recipe}.yaml")
        epochs[recipe] = total = config.trainer.max_epochs
        assert total is not None
        per_step = config.crops.batch_size * config.trainer.devices
        assert config.optimizer.lr == pytest.approx(0.1 * per_step / 64)
        assert config.schedule.warmup == pytest.approx(6 / total)
        assert config.loss.margin_ramp == pytest.approx((19 / total, 39 / total), abs=1e-3)
        assert config.crops.per_epoch is not None
        assert config.trainer.val_every_steps == 5 * (config.crops.per_epoch // per_step)
    assert epochs == {"redimnet": 120, "redimnet2": 120, "ecapa-tdnn": 150}


def test_a_recipe_runs_then_the_mean_of_its_weights_is_fine_tuned_with_a_large_margin(
    voices: list[str], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    output = f"output={tmp_path / 'first'}"
    overrides = [*voices, *CHEAP, "model.name=redimnet2-b0", output]
    first = train(load_config(CONFIGS / "recipes" / "redimnet2.yaml", overrides))
    assert first.average is not None
    average = first.folder / "average.safetensors"
    for recipe in ("large-margin", "recipes/redimnet2-large-margin"):
        output = f"output={tmp_path / recipe}"
        tuned = train(load_config(CONFIGS / f"{recipe}.yaml", [*voices, *CHEAP, f"init_from={average}", output]))
        before, after = (read_metadata(file) for file in (average, tuned.folder / "last.safetensors"))
        assert after["name"] == before["name"] == "redimnet2-b0"
        assert after["config"] == before["config"]
        assert tuned.step == 2


def test_five_trainings_make_the_network_of_the_default_model(voices: list[str], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    teacher, student, third, fourth = (
        tmp_path / name / "last.safetensors" for name in ("1-teacher", "2-student", "3-campplus", "4-sessions")
    )
    steps = {
        "1-teacher": ["distillation.teachers=[]"],
        "2-student": [f"distillation.teachers=[{teacher}]"],
        "3-campplus": [f"distillation.teachers=[{teacher}]", f"init_from={student}", "trainer.max_minutes=null"],
        "4-sessions": [f"distillation.teachers=[{teacher}]", f"init_from={third}", "trainer.max_minutes=null"],
        "5-prefixes": [f"distillation.teachers=[{teacher}]", f"init_from={fourth}", "trainer.max_minutes=null"],
    }
    for recipe, more in steps.items():
        settings = [*voices, *CHEAP, *more, f"output={tmp_path / recipe}"]
        result = train(load_config(CONFIGS / "default-model" / f"{recipe}.yaml", settings))
    made, shipped = (read_metadata(file) for file in (result.folder / "last.safetensors", DEFAULT_FILE))
    assert made["architecture"] == shipped["architecture"]
    assert made["config"] | {"dims": 0} == shipped["config"] | {"dims": 0}
