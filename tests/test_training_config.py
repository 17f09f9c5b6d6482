"""A configuration: YAML and overrides, checked once; errors name the key and what would be right."""

import inspect
from pathlib import Path

import pytest
import yaml

from voxnest.crops.augmentation import Augmentation
from voxnest.errors import ConfigError
from voxnest.training import config as settings
from voxnest.training.config import TrainingConfig
from voxnest.training.crop_config import Crops
from voxnest.training.loss_config import Loss
from voxnest.training.precision import find_precision
from voxnest.training.schedules import Clock, Limits, dim_weights_at, duration_at, lr_factor, margin_at
from voxnest.training.settings import dump_config, first_difference, known_keys, load_config

EXAMPLE = Path(__file__).parents[1] / "configs" / "example.yaml"


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_example_shows_every_key_with_its_default():
    shown = load_config(EXAMPLE)
    assert shown.model_dump(exclude={"output"}) == TrainingConfig(
        data=settings.Data(train=Path("manifest"))
    ).model_dump(exclude={"output"})

    def keys(content: dict, prefix: str = ""):
        for key, value in content.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")

    assert set(keys(yaml.safe_load(EXAMPLE.read_text()))) == set(known_keys())


def test_augmentation_options_and_defaults_are_those_of_the_corpora():
    theirs = inspect.signature(Augmentation).parameters
    ours = settings.Augmentation().model_dump()
    for name, value in ours.items():
        default = theirs[name].default
        assert value == (list(default) if isinstance(value, list) else default), name


def test_the_output_is_named_after_the_file_unless_given(write):
    path = write("data: {train: corpus}")
    assert load_config(path).output == Path("runs/run")
    assert load_config(path, ["output=elsewhere"]).output == Path("elsewhere")


def test_automatic_precision_is_what_the_device_computes_in(monkeypatch):
    for able, precision in ((True, "bf16-mixed"), (False, "32")):
        monkeypatch.setattr("voxnest.training.precision.computes_bfloat16", lambda able=able: able)
        assert find_precision("auto", "cpu") == precision
        assert find_precision("16-mixed", "cpu") == "16-mixed"
    assert find_precision("auto", "mps") == "32"


def test_overrides_are_yaml_values_at_dotted_keys(write):
    path = write("data: {train: corpus}\noptimizer: {lr: 0.1}\nloss:\n")
    config = load_config(
        path,
        [
            "optimizer.lr=2e-3",
            "trainer.max_steps=10",
            "model.dims=[16, 32]",
            "data.validation.held_out_speakers=3",
            "trainer.precision=32",
            "model.overrides.hop_length=240",
        ],
    )
    assert config.optimizer.lr == 0.002
    assert config.trainer.max_steps == 10
    assert config.trainer.precision == "32"
    assert config.model.dims == [16, 32]
    assert config.model.overrides == {"hop_length": 240}
    assert config.data.validation.held_out_speakers == 3


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("optimizer: {lrr: 1}", "unknown key 'optimizer.lrr'", "'optimizer.lr'"),
        ("optimiser: {lr: 1}", "unknown key 'optimiser'", "'optimizer'"),
        ("lr: 1", "unknown key 'lr'", "'optimizer.lr'"),
        ("trainer: {max_step: 5}", "unknown key 'trainer.max_step'", "'trainer.max_steps'"),
        ("optimizer: {name: adan}", "optimizer.name is 'adan'", "'adamw', 'adam', 'sgd' or 'muon'"),
        ("optimizer: {lr: fast}", "optimizer.lr is 'fast'", "a valid number"),
        ("optimizer: {lr: -1}", "optimizer.lr is -1", "greater than 0"),
        ("crops: {speeds: [1, zero]}", "crops.speeds is 'zero'", "a valid number"),
        ("trainer: {devices: some}", "trainer.devices is 'some'", "'auto'"),
        ("trainer: {precision: 64}", "trainer.precision is '64'", "'bf16-mixed'"),
        ("augmentation: {noise_snr: [25, 5]}", "augmentation.noise_snr is [25.0, 5.0]", "lower number first"),
        ("loss: 5", "loss is 5", "keys and values"),
        ("stages: {frozen_steps: 5, projection_only: true}", "stages has both", "one of them"),
        ("loss: {dim_starts: [0.5, 0.1]}", "loss.dim_starts is [0.5, 0.1]", "from the start"),
        ("loss: {duration_weights: {1.0: [0, 0]}}", "loss.duration_weights is [0.0, 0.0]", "one above 0"),
        ("loss: {margin_type: B}", "loss.margin_type is 'B'", "'A' or 'C'"),
        ("crops: {durations: {1: 1}, lengthen: {2: 3}}", "crops has both durations and lengthen", "one of them"),
        ("schedule: {kind: exponential, final_lr: 0}", "schedule has kind exponential", "final_lr above 0"),
        ("model: {name: null}", "has model.name null and no init_from", "one of them"),
        ("distillation: {teachers: [a], cosine: 0}", "distillation has teachers and no weight", "above 0"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_says_what_would_be_right(write, text, found, expected):
    path = write(f"data: {{train: corpus}}\n{text}\n")
    message = error_of(path)
    assert message.startswith(f"{path}: {found}")
    assert expected in message


def test_a_wrong_override_is_named_instead_of_the_file(write):
    path = write("data: {train: corpus}")
    assert error_of(path, "optimizer.lrr=1").startswith("optimizer.lrr=1: unknown key")
    assert error_of(path, "optimizer.lr=slow").startswith("optimizer.lr=slow: optimizer.lr is 'slow'")
    assert "key=value" in error_of(path, "optimizer.lr")
    assert error_of(path, "seed.x=1").startswith("seed.x=1: seed is {'x': 1}")
    assert "'data.train' is not a section" in error_of(path, "data.train.x=1")
    assert "not a YAML value" in error_of(path, "model.dims=[16")


def test_trials_and_held_out_speakers_exclude_each_other(write):
    path = write("data: {train: c, validation: {trials: t.txt, held_out_speakers: 4}}")
    assert "data.validation has both trials and held_out_speakers" in error_of(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "empty"),
        ("- a", "a list"),
        ("seed: [1", "not YAML"),
        ("data: {train: c}\nseed: 1\nseed: 2", "'seed' twice"),
        ("seed: 1", "'data' is missing"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(write, text, found):
    assert found in error_of(write(text))


def test_a_missing_file_is_one_line(tmp_path):
    assert "No such file" in error_of(tmp_path / "none.yaml")


def test_the_resolved_configuration_reads_back_the_same(write, tmp_path):
    config = load_config(write("data: {train: corpus}"), ["augmentation.noise=[noise]", "trainer.devices=[0, 1]"])
    dump_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_the_first_difference_of_two_configurations_is_found_but_for_free_keys(write):
    path = write("data: {train: corpus}")
    old = load_config(path)
    assert first_difference(old, load_config(path, ["data.workers=3", "output=x"])) is None
    difference = first_difference(old, load_config(path, ["optimizer.lr=0.5", "trainer.clip=1"]))
    assert difference == ("optimizer.lr", 0.001, 0.5)


def test_learning_rate_warms_up_then_falls_as_a_cosine_to_its_end():
    schedule = settings.Schedule(warmup=0.1, final_lr=0.02)
    assert lr_factor(0.0, schedule) == pytest.approx(0.01)
    assert lr_factor(0.1, schedule) == pytest.approx(1.0)
    assert lr_factor(0.55, schedule) == pytest.approx(0.51)
    assert lr_factor(1.0, schedule) == pytest.approx(0.02)
    assert lr_factor(0.0, settings.Schedule(warmup=0.0)) == pytest.approx(1.0)


def test_margin_grows_between_the_ends_of_its_ramp():
    loss = Loss(margin=0.3, margin_start=0.1, margin_ramp=(0.2, 0.6))
    assert [margin_at(at, loss) for at in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.3])
    assert margin_at(0.0, Loss(margin_ramp=(0.0, 0.0))) == 0.2


def test_the_exponential_schedule_is_that_of_wespeaker():
    schedule = settings.Schedule(kind="exponential", warmup=0.1, final_lr=1e-4)
    assert [lr_factor(at, schedule) for at in (0.1, 0.5, 1.0)] == pytest.approx([1e-4**0.1, 1e-2, 1e-4])
    assert lr_factor(0.05, schedule) == pytest.approx((0.01 + 0.99 / 2) * 1e-4**0.05)


def test_an_exponential_margin_is_half_there_after_a_tenth_of_its_ramp():
    loss = Loss(margin=0.3, margin_ramp=(0.2, 0.7), margin_growth="exponential")
    found = [margin_at(at, loss) for at in (0.1, 0.25, 0.45, 0.7, 0.9)]
    assert found == pytest.approx([0.0, 0.15, 0.3 * (1 - 1e-3**0.5), 0.3, 0.3], abs=2e-3)


def test_prefixes_count_from_their_start_on_and_by_the_length_of_crops():
    dims = (8, 16, 32)
    plain = dim_weights_at(0.0, 2.0, Loss(), dims)
    assert plain == pytest.approx({8: 1 / 3, 16: 1 / 3, 32: 1 / 3})
    loss = Loss(dim_weights=[1, 1, 2], dim_starts=[0.5, 0.2, 0], duration_weights={1.0: [1, 1, 0], 2.0: [0, 1, 1]})
    assert dim_weights_at(0.0, 4.0, loss, dims) == {8: 0, 16: 0, 32: 1}
    assert dim_weights_at(0.3, 4.0, loss, dims) == pytest.approx({8: 0, 16: 1 / 3, 32: 2 / 3})
    assert dim_weights_at(0.5, 4.0, loss, dims) == {8: 0.25, 16: 0.25, 32: 0.5}
    assert dim_weights_at(0.5, 1.0, loss, dims) == {8: 0.5, 16: 0.5, 32: 0}
    assert dim_weights_at(0.5, 0.5, loss, dims) == {8: 0.5, 16: 0.5, 32: 0}
    assert dim_weights_at(0.5, 1.5, loss, dims) == {8: 0, 16: 0.5, 32: 0.5}


def test_schedules_follow_the_limit_that_is_nearest_to_its_end():
    limits = Limits(steps=100, seconds=60)
    assert limits.fraction(10, 3) == 0.1
    assert limits.fraction(10, 45) == 0.75
    assert limits.fraction(10, 90) == 1.0


def test_the_clock_goes_on_where_an_earlier_part_of_the_run_stopped():
    now = iter([100.0, 130.0]).__next__
    clock = Clock(now)
    clock.start(before=50.0)
    assert clock.elapsed == 80.0


def test_crops_grow_longer_from_the_epochs_that_are_named() -> None:
    crops = Crops(duration=1.5, lengthen={3: 2.0, 7: 3.0})
    assert [duration_at(epoch, crops) for epoch in (0, 2, 3, 6, 7, 99)] == [1.5, 1.5, 2.0, 2.0, 3.0, 3.0]
