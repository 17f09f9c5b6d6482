"""Training runs that ask more of prefixes: own classes, starts, lengths of crops, teachers, means of weights."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from test_training import SMALL, AfterStep, column, interrupt, losses, make_corpus, quietly
from voxnest.corpora.manifest import Utterance, read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.crops.dataset import CropDataset
from voxnest.crops.loading import make_loader
from voxnest.errors import ConfigError
from voxnest.evaluation import evaluate
from voxnest.hub.checkpoint import load_encoder, read_metadata, save_encoder
from voxnest.inference.archive import embed_to_file
from voxnest.training.config import TrainingConfig
from voxnest.training.distillation import Distiller, StoredTeacher, relational_loss, self_distillation
from voxnest.training.loss_config import Distillation
from voxnest.training.settings import load_config
from voxnest.zoo.registry import create_encoder

Configure = Callable[..., TrainingConfig]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nesting")
    prepare(make_corpus(folder / "corpus"), folder / "manifest")
    return folder / "manifest"


@pytest.fixture
def configure(tmp_path: Path, manifest: Path) -> Configure:
    """Extreme prefixes, in crops of 0.5 s."""

    def configure(*overrides: str, name: str = "run") -> TrainingConfig:
        held_out = {"held_out_speakers": 2, "segment": 1.0}
        content = {**SMALL, "data": {"train": str(manifest), "validation": held_out}, "output": str(tmp_path / name)}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        given = ["model.dims=[8, 16, 32]", "crops.duration=0.5", "trainer.val_every_steps=2", *overrides]
        return load_config(path, given)

    return configure


EVERYTHING = (
    "loss.kind=subcenter", "loss.top_k=2", "loss.classes=own", "loss.dim_starts=[0.6, 0.3, 0]",
    "crops.durations={0.4: 1, 0.8: 1}", "loss.duration_weights={0.4: [1, 1, 0.5]}", "loss.self_distillation=5",
    "trainer.average_last=2", "trainer.max_steps=6", "crops.per_epoch=20", "ema=0.5",
)  # fmt: skip


def test_a_run_with_all_that_prefixes_may_be_asked_continues_exactly(configure: Configure) -> None:
    whole, stopped = configure(*EVERYTHING, name="whole"), configure(*EVERYTHING, name="stopped")
    expected = quietly(whole)
    with pytest.raises(Exception, match="interrupted"):
        quietly(stopped, AfterStep(interrupt, 3))
    result = quietly(stopped)
    assert losses(stopped) == losses(whole)
    assert column(whole, "loss/self_distillation")[0] > 0
    assert result.average == expected.average
    assert quietly(stopped).average == expected.average  # as read from the finished run
    first, second = (load_encoder(c.output / "average.safetensors").state_dict() for c in (whole, stopped))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_loss_of_a_batch_is_that_of_the_prefixes_that_its_length_and_time_train(configure: Configure) -> None:
    config = configure("crops.durations={0.4: 1, 0.8: 1}", "loss.duration_weights={0.4: [1, 0, 0]}",
                       "loss.dim_starts=[0, 0.5, 0]", "trainer.max_steps=8")  # fmt: skip
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            parts = {dim: float(value) for dim, value in module.losses.items()}
            seconds = batch["waveform"].shape[1] / 16000
            assert batch["seconds"] == seconds
            late = (parts[8] + parts[16] + parts[32]) / 3
            wanted = parts[8] if seconds == 0.4 else late if module.fraction >= 0.5 else (parts[8] + parts[32]) / 2
            assert float(module.loss) == pytest.approx(wanted)
            seen.append((seconds, module.fraction >= 0.5))

    quietly(config, Look())
    assert set(seen) == {(seconds, late) for seconds in (0.4, 0.8) for late in (True, False)}


def test_batches_have_one_length_each_in_its_share_whatever_reads_them(manifest: Path) -> None:
    def lengths(**options: int) -> list[int]:
        crops = CropDataset(read_manifest(manifest), duration=0.5, crops_per_epoch=40)
        crops.durations = {0.2: 1, 0.4: 3}
        crops.set_epoch(1)
        return [batch["waveform"].shape[1] for batch in make_loader(crops, batch_size=2, **options)]

    whole = lengths()
    assert sorted(whole) == [3200] * 5 + [6400] * 15
    assert lengths(start_batch=7) == whole[7:]
    assert lengths(rank=1, world_size=2) == lengths(rank=0, world_size=2)


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["loss.dim_starts=[0, 0]"], "loss.dim_starts: 2 of them"),
        (["loss.duration_weights={1.0: [1]}"], "loss.duration_weights.1: 1 of them"),
        (["loss.dim_starts=[0, 0, 0.5]", "loss.duration_weights={1.0: [0, 0, 1]}"], "batches of 1 s train nothing"),
        (["crops.durations={0.1: 1}", "model.name=xvector"], "crops.durations: 0.1 s"),
        (["distillation.teachers=[nowhere.npz]"], "nowhere.npz"),
        (["distillation.teachers=[nowhere.safetensors]"], "nowhere.safetensors"),
    ],
)
def test_what_does_not_fit_is_one_line(configure: Configure, overrides: list[str], found: str) -> None:
    with pytest.raises(Exception, match="expected") as caught:
        quietly(configure(*overrides))
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sphereface2_learns_with_extreme_prefixes(configure: Configure) -> None:
    config = configure("loss.kind=sphereface2", "loss.scale=32", "trainer.max_steps=30", "optimizer.lr=0.005",
                       "loss.margin=0.1", "trainer.val_every_steps=100", "crops.batch_size=8")  # fmt: skip
    quietly(config)
    found = losses(config)
    assert np.isfinite(found).all()
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])


def test_the_average_is_the_mean_of_the_last_validated_weights_and_has_its_own_error_rates(
    configure: Configure,
) -> None:
    config = configure("trainer.average_last=3", "trainer.max_steps=5", "trainer.val_every_steps=1",
                       "optimizer.lr=0.01")  # fmt: skip
    states = []

    class Look(L.Callback):
        def on_validation_batch_end(self, trainer, module, *_):
            states.append({key: value.clone() for key, value in module.encoder.state_dict().items()})

    result = quietly(config, Look())
    average = load_encoder(config.output / "average.safetensors")
    for key, value in average.state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([state[key] for state in states[-3:]]).mean(dim=0)
            torch.testing.assert_close(value, mean)
    assert not torch.equal(average.head.linear.weight, states[-1]["head.linear.weight"])
    metadata = read_metadata(config.output / "average.safetensors")["metadata"]
    assert metadata["steps"] == [3, 4, 5]
    measured = evaluate(average, config.output / "validation" / "trials.txt").dims
    assert {str(dim): found.eer for dim, found in measured.items()} == result.average
    assert set(average.thresholds) == {8, 16, 32}


def test_relations_are_the_cosines_among_a_batch() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 7, requires_grad=True)
    found = relational_loss([student, student[:, :2]], teacher)
    wanted = 0.0
    for item in (student, student[:, :2]):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            ours, theirs = (F.cosine_similarity(x[a], x[b], dim=0) for x in (item, teacher))
            wanted += (ours - theirs).square().item() / 6
    assert found.item() == pytest.approx(wanted)
    found.backward()
    assert teacher.grad is None
    whole = torch.randn(3, 8)
    assert self_distillation({4: whole[:, :4], 8: whole}) == relational_loss([whole[:, :4]], whole)
    assert self_distillation({8: whole}) == 0


def test_several_teachers_are_agreed_with_through_linear_maps_where_sizes_differ() -> None:
    class Fixed:
        def __init__(self, table: torch.Tensor) -> None:
            self.table, self.embedding_dim = table, table.shape[1]

        def embeddings(self, batch: dict) -> torch.Tensor:
            return self.table

    torch.manual_seed(0)
    tables = [torch.randn(5, 8), torch.randn(5, 6)]
    distiller = Distiller(Distillation(cosine=2, prefix=3), [Fixed(table) for table in tables], (4, 8))
    assert [type(part).__name__ for part in distiller.maps] == ["Identity", "Linear"]
    whole = torch.randn(5, 8)
    mapped = [whole, whole @ distiller.maps[1].weight.T]
    wanted = sum(
        2 * (1 - F.cosine_similarity(ours, table)).mean() + 3 * relational_loss([whole[:, :4]], table)
        for ours, table in zip(mapped, tables, strict=True)
    )
    torch.testing.assert_close(distiller({4: whole[:, :4], 8: whole}, {}), wanted / 2)


def test_a_stored_teacher_is_asked_about_the_speed_that_is_heard(tmp_path: Path) -> None:
    utterances = [Utterance(f"u{number}", f"s{number % 2}", "0", Path(f"{number}.wav"), 1.0) for number in range(3)]
    names = [f"u{number}{ending}" for ending in ("@0.9", "") for number in (2, 1, 0)]
    matrix = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.savez(archive := tmp_path / "t.npz", names=np.array(names), embeddings=matrix, model="m", dim=2)
    teacher = StoredTeacher(archive, utterances, [1.0, 0.9])
    numbers, speeds = torch.tensor([0, 1, 2, 0, 2]), torch.tensor([0, 0, 0, 1, 1])
    found = teacher.embeddings({"utterance": numbers, "label": numbers % 2 + 2 * speeds})
    assert found.tolist() == matrix[[5, 4, 3, 2, 0]].tolist()


def test_a_student_comes_nearer_to_its_teachers_live_or_stored(
    configure: Configure, manifest: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    save_encoder(create_encoder("redimnet-tiny", dims=[24]).eval(), live := tmp_path / "teacher.safetensors")
    stored = tmp_path / "teacher.npz"
    embed_to_file(load_encoder(live), sorted({item.path for item in read_manifest(manifest)}), stored)
    options = ("trainer.max_steps=40", "optimizer.lr=0.005", "distillation.cosine=20", "distillation.prefix=1",
               "augmentation.noise_probability=0", "trainer.val_every_steps=100")  # fmt: skip
    for name, teachers in (("live", [live]), ("stored", [stored]), ("both", [live, stored])):
        config = configure(*options, f"distillation.teachers=[{', '.join(map(str, teachers))}]", name=name)
        quietly(config)
        found = column(config, "loss/distillation")
        assert np.mean(found[-3:]) < 0.7 * np.mean(found[:3]), name
        saved = torch.load(config.output / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert [key for key in saved if "teacher" in key] == []
    with pytest.raises(ConfigError, match=r"no embedding of 12 of 12 utterances, such as .*@0\.9"):
        quietly(configure(f"distillation.teachers=[{stored}]", "crops.speeds=[1.0, 0.9]", name="fast"))
    one = tmp_path / "one.npz"
    embed_to_file(load_encoder(live), [read_manifest(manifest)[0].path], one)
    with pytest.raises(ConfigError, match=r"no embedding of .* of 12 utterances"):
        quietly(configure(f"distillation.teachers=[{one}]", name="few"))
