"""Put faults into a copy of the code, one at a time, and see that a test catches each.

    python tools/faults.py                # all of them
    python tools/faults.py muon metrics   # those whose file, text or test has one of these words

A fault is a piece of text that is replaced, and the tests that are to fail; exit status 1 if they pass with any.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
EVERY = "every_model.py -k 'learns or matters'"
MASKS = "frontends.py -k 'masks or bands or hides'"
RATES = "metrics.py properties.py -k 'not half_a_million and (rates or kinds or costs or scores or threshold)'"
LLRS = "calibration.py"
NORMS = "normalisation.py"
DRAWS = "bootstrap.py"
LISTS = "trials.py properties.py -k 'trial or both_formats or made or error'"
CROPS = "crops.py properties.py -k 'crop or share or speaker or utterance'"
TURNS = "rotation.py properties.py -k 'rotat or turned or prefix or direction'"
LOSSES = "losses.py -k 'center or class or sphereface2 or top_k'"
MODES = "zoo.py matryoshka_fit.py -k 'mode'"
COMPANY = "workers.py"
STREAMS = "streaming.py -k 'not real'"
LONG = "inference.py encode.py -k 'long or loud or part'"
EXITS = "exits.py"
MUON = "optimizers.py"
FUSION = "eres2net.py -k fusion"
GRADIENTS = "nas.py -k gradients"
JSON = "properties.py -k json_option"
SEARCHED = "autospeech.py autospeech_files.py"
INT8 = "export.py -k 'int8 or three_percent or turns'"
ENGINES = "runtimes.py -k 'fastest or ahead or cannot_be_embedded'"
SHARDS = "bulk.py -k 'deleted or one_model or kaldiio or parquet or comes_again'"
EXITS = "exits.py"
ADAPTERS = "adapters.py -k 'auto or turn or merged or no_adapter or training_an'"
FAULTS: tuple[tuple[str, str, str, str], ...] = (
    # Searched networks.
    ("models/autospeech.py", "{config.layers // 3, 2 *", "{config.layers // 3, 1 *", SEARCHED),
    ("models/autospeech.py", "if reduction and node < INPUTS", "if reduction and node < 1", SEARCHED),
    ("models/autospeech.py", "and not isinstance(operation, nn.Identity)", "and False", SEARCHED),
    ("models/autospeech.py", "self.drop_path * self.progress if", "self.drop_path if", SEARCHED),
    ("models/operations.py", "count_include_pad=False", "count_include_pad=True", SEARCHED),
    ("models/operations.py", "stride, affine, 2, 1)", "stride, affine, 2, 2)", SEARCHED),
    ("models/genotype.py", "0 <= node < there", "node < there", "genotype.py"),
    ("models/genotype.py", "INPUTS <= node < nodes", "0 <= node < nodes", "genotype.py"),
    ("foreign/autospeech.py", "torch.cat([joined.pop(key), second])", "torch.cat([second, joined.pop(key)])", SEARCHED),
    ("foreign/autospeech.py", " | _read_statistics(source.parent)", "", SEARCHED),
    # Masking: offsets, count, width, mode.
    ("frontends/base.py", "size - int(width[1]) + 1)", "size - int(width[1]) - 1)", MASKS),
    ("frontends/base.py", "torch.randint(first, last,", "torch.randint(0, last,", MASKS),
    ("frontends/base.py", "self.time_width)", "self.time_width, self.first_bin)", MASKS),
    ("frontends/base.py", "position < start + length)", "position < start + length + 1)", MASKS),
    ("frontends/base.py", "torch.randint(width[0], width[1],", "torch.randint(0, width[1],", MASKS),
    ("frontends/base.py", "for _ in range(self.times)", "for _ in range(1)", MASKS),
    ("frontends/base.py", '"time_width": (0, frames + 1)', '"time_width": (0, frames)', "every_model.py -k masked"),
    ("frontends/base.py", "if not self.training:\n            return features", "", "every_model.py -k masked"),
    # Modes that are left behind.
    ("zoo/counting.py", "with eval_mode(encoder), ", "with ", MODES),
    ("matryoshka/fit.py", "with eval_mode(encoder):", "if encoder.eval():", MODES),
    ("matryoshka/fit.py", "with eval_mode(encoder):", "if True:", MODES),
    ("models/embedding.py", "module.training = True", "encoder.train()", MODES),
    ("training/module.py", "        if self.frozen:\n", "        if False:\n", "training.py -k frozen"),
    # Parts of long recordings.
    ("models/encoding.py", "(embeddings / np.maximum(norms, np.finfo(np.float32).tiny))", "embeddings", LONG),
    ("models/encoding.py", "(mean * norms.mean(axis=0))", "mean", LONG),
    # Exits: what each is given, what it is known for, and who takes it.
    ("models/encoding.py", "axis=-1, keepdims", "axis=1, keepdims", EXITS),
    ("models/encoding.py", "norms.mean(axis=0)", "norms.mean()", EXITS),
    ("models/exits.py", "dict(taken.thresholds), dict", "{}, dict", EXITS),
    ("models/maps.py", "max(counts)", "len(self.stages)", EXITS),
    ("models/redimnet2.py", "and not self.training:", "and False:", EXITS),
    ("evaluation/trial_sets.py", "embedding[number]", "embedding[-1]", EXITS),
    ("runtimes/export.py", "    encoder = encoder.for_dim(dim)\n", "", EXITS),
    ("models/adapters.py", "in self._told.items()", "in ()", "adapters.py -k turn"),
    ("runtimes/openvino.py", "@functools.cache\n", "", "runtimes.py -k signals"),
    ("evaluation/trial_sets.py", "side.append(place[own])", "side.append(own)", "model_calibration.py -k several"),
    # Recordings in groups of one length.
    ("models/workers.py", "len(group) >= most", "len(group) > most", COMPANY),
    ("models/workers.py", "min(self._batch, int(SECONDS_AT_ONCE * self._rate) // length)", "self._batch", COMPANY),
    ("models/workers.py", " or self._samples > _SECONDS_WAITING * self._rate", "", COMPANY),
    ("models/workers.py", " and len(flights) < _AHEAD * batch", "", COMPANY),
    ("models/workers.py", "next(iter(self._groups))", "next(reversed(self._groups))", COMPANY),
    ("models/workers.py", "            if len(group) == 1:\n", "            if group:\n", COMPANY),
    ("models/encoding.py", "0 < len(waveform) < min_samples", "False", "encode.py -k short"),
    # Streams.
    ("models/streaming.py", "samples[:missing].copy()", "samples[:missing]", STREAMS),
    ("models/streaming.py", "[-self._hops_in_window :]", "", STREAMS),
    ("models/streaming.py", "np.abs(window).max() > SILENCE_PEAK", "True", STREAMS),
    ("models/streaming.py", "self._samples >= self._hops_in_window", "self._samples > self._hops_in_window", STREAMS),
    ("models/streaming.py", "resample_chunk(samples, last=last)", "resample_chunk(samples)", STREAMS),
    ("models/streaming.py", "[-self._hops_kept * self._hop :]", "", STREAMS),
    ("models/streaming.py", "self._hops_kept - self._hops_in_window + 1", "self._hops_kept", STREAMS),
    # Sub-centers.
    ("losses/classes.py", ".amax(dim=2)", ".mean(dim=2)", LOSSES),
    ("losses/classes.py", ".amax(dim=2)", "[:, :, 0]", LOSSES),
    ("losses/classes.py", "torch.empty(num_classes * sub_centers", "torch.empty(num_classes * 3", LOSSES),
    ("losses/classes.py", "repeat_interleave(self.sub_centers, dim=0)", "repeat(3, 1)", LOSSES),
    ("losses/aam.py", "* margin / USUAL_MARGIN", "", LOSSES),
    ("losses/aam.py", "scatter(1, own, -torch.inf).topk", "topk", LOSSES),
    ("losses/sphereface2.py", "self._logits(cosine, -margin)", "self._logits(cosine, margin)", LOSSES),
    ("losses/sphereface2.py", ".scatter(1, own, 0.0)", "", LOSSES),
    ("training/schedules.py", "if limit >= seconds", "if limit > seconds", "training_config.py -k prefixes"),
    ("training/averaging.py", ".mean(dim=0)", ".amax(dim=0)", "training_nesting.py -k average"),
    ("training/distillation.py", "[different]", "", "training_nesting.py -k relations"),
    ("crops/loading.py", "durations[batch]", "durations[0]", "training_nesting.py -k share"),
    ("training/criterion.py", "loss.sub_centers if", "3 if", MUON),
    # Muon's matrices.
    ("training/module.py", "min(sides) >= 8", "min(sides) >= 1", MUON),
    ("training/module.py", "min(sides) >= 8", "min(sides) > 8", MUON),
    ("training/module.py", "min(sides) >= 8", "max(sides) >= 8", MUON),
    ("training/module.py", "if parameter.ndim > 1 else (1, 1)", "if parameter.ndim == 2 else (1, 1)", MUON),
    ("training/module.py", ' and name.startswith("encoder.")', "", MUON),
    ("training/optimizers.py", "self._step_matrices(group)", "pass", MUON),
    ("training/optimizers.py", " * max(shape) ** 0.5", "", MUON),
    ("training/optimizers.py", "gradient.lerp(mean, momentum)", "mean", MUON),
    ("training/optimizers.py", "(x.mT if tall else x).to", "x.to", MUON),
    ("training/optimizers.py", "(state_dict)\n        self._share()", "(state_dict)", MUON),
    # A residual branch times zero, in each family.
    ("models/redimnet_blocks.py", 'return x + (self.norm(y) if', 'return x + 0 * (self.norm(y) if', EVERY),
    ("models/redimnet_blocks.py", "F.relu(self.se(y) + x, ", "F.relu(0 * self.se(y) + x, ", EVERY),
    ("models/blocks_1d.py", "return x + self.expand(self.context", "return x + 0 * self.expand(self.context", EVERY),
    ("models/blocks_1d.py", "self.norm(x + self.attention(x))", "self.norm(x + 0 * self.attention(x))", EVERY),
    ("models/blocks_1d.py", "self.final_norm(x + self._feed", "self.final_norm(x + 0 * self._feed", EVERY),
    ("models/tdnn.py", "torch.addcmul(x, y, self.se.gate(y))", "torch.addcmul(x, 0 * y, self.se.gate(y))", EVERY),
    ("models/ecapa2.py", "return y + self.shortcut(x)", "return 0 * y + self.shortcut(x)", EVERY),
    ("models/campplus.py", "return self.conv(x) * self.mask(x)", "return 0 * self.conv(x) * self.mask(x)", EVERY),
    ("models/resnet_blocks.py", "self.branch(x).add_(", "self.branch(x).mul_(0).add_(", EVERY),
    ("models/eres2net.py", "torch.addcmul(x + y, x - y, attention)", "torch.addcmul(x, x, attention)", FUSION),
    ("models/next_tdnn.py", "x = x + self.conv(x)", "x = x + 0 * self.conv(x)", EVERY),
    ("models/next_tdnn.py", "return x + self.contract(", "return x + 0 * self.contract(", EVERY),
    ("models/redimnet2.py", "self.upsample(self.context(x))", "self.upsample(x)", EVERY),
    # Error rates.
    ("evaluation/curve.py", "misses[at] * nontargets >= false", "misses[at] * nontargets > false", RATES),
    ("evaluation/curve.py", "fnr[0] + step * (fnr[1] - fnr[0])", "fnr[0]", RATES),
    ("evaluation/metrics.py", "middle if middle > below else above", "below", RATES),
    ("evaluation/curve.py", "np.flatnonzero(np.diff(values)) + 1", "np.arange(1, len(values))", RATES),
    ("evaluation/curve.py", "min(missing, accepting)", "missing", RATES),
    ("evaluation/curve.py", "c_fa * (1 - p_target)", "c_fa * p_target", RATES),
    ("evaluation/metrics.py", "accepted = values >= threshold", "accepted = values > threshold", RATES),
    ("evaluation/curve.py", "(self.thresholds, threshold)", "(self.thresholds, -threshold)", LLRS),
    ("evaluation/curve.py", "(targets, -llrs), (nontargets, llrs)", "(targets, llrs), (nontargets, -llrs)", LLRS),
    ("evaluation/curve.py", "while pooled and", "if pooled and", LLRS),
    ("evaluation/bootstrap.py", "np.append(drawn[replicate], 1)", "np.append(drawn[replicate], 2)", DRAWS),
    ("evaluation/bootstrap.py", "_interval(draws[0] - draws[1]", "_interval(draws[0] - draws[1].mean()", DRAWS),
    ("evaluation/identification_rates.py", "(values >= own[:, None]", "(values > own[:, None]", DRAWS),
    ("evaluation/identification_rates.py", "rivals | (own < threshold)", "own < threshold", DRAWS),
    # Normalisation, calibration, PLDA.
    ("scoring/normalisation.py", "similarities.partition(-top_n, axis=1)", "pass", NORMS),
    ("scoring/normalisation.py", "similarities[:, -top_n:]", "similarities[:, :top_n]", NORMS),
    ("scoring/normalisation.py", "return total / len(sides)", "return total", NORMS),
    ("scoring/normalisation.py", "(others - centre).T @ (others - centre)", "others.T @ others", NORMS),
    ("scoring/arrays.py", "return not different.any()", "return True", NORMS),
    ("scoring/logistic.py", "solution[-1] - weights @ mean", "solution[-1]", LLRS),
    ("scoring/logistic.py", "(1 - prior) / counts[1]", "(1 - prior) / counts[0]", LLRS),
    ("scoring/logistic.py", "math.log(prior / (1 - prior)), penalty", "0.0, penalty", LLRS),
    ("scoring/calibration.py", "rate * (nontargets + 1)", "rate * (nontargets + 101)", LLRS),
    ("scoring/calibration.py", "np.nextafter(highest, np.inf)", "highest", LLRS),
    ("scoring/plda.py", "(1 / total - total / determinant) / 2", "(1 / total - total / determinant)", LLRS),
    ("scoring/plda.py", "moments = chosen.sum() * uncertain + ", "moments = ", LLRS),
    ("scoring/cosine.py", ".mean(axis=1)", "[:, 0]", "calibration.py"),
    # Trial lists.
    ("corpora/trials.py", "label, fields[0], fields[1]", "label, fields[1], fields[0]", LISTS),
    ("corpora/trials.py", 'if name.split() != [name]:', 'if " " in name:', LISTS),
    ("corpora/trials.py", '"utf-8-sig" if number == 1 else "utf-8"', '"utf-8"', LISTS),
    ("corpora/trials.py", "split(maxsplit=3)", "split(maxsplit=2)", LISTS),
    ("corpora/trials.py", "np.arange(1, size + 1)", "np.arange(size)", LISTS),
    # Crops.
    ("crops/dataset.py", "max(length - count + 1, 0)", "max(length, 0)", CROPS),
    ("crops/dataset.py", "int(self._start[utterance]) + start, min(count, length)", "start, min(count, length)", CROPS),
    ("crops/dataset.py", "start, min(count, length)\n", "start, count\n", CROPS),
    ("crops/dataset.py", "(self.seed, _CROP, epoch, position)", "(self.seed, _CROP, position)", CROPS),
    ("crops/dataset.py", "(times + rng.random(count))", "(0 * times + rng.random(count))", CROPS),
    ("crops/store.py", "np.resize(samples, count)", "np.pad(samples, (0, count - len(samples)))", CROPS),
    # Rotations.
    ("matryoshka/rotation.py", "* triangle.diagonal().sign()).T", "* triangle.diagonal()).T", TURNS),
    ("matryoshka/rotation.py", ".eigenvectors.flip(1)", ".eigenvectors", TURNS),
    ("matryoshka/rotation.py", "rotation.to(bias) @ bias", "bias", TURNS),
    ("matryoshka/rotation.py", "running_var.fill_(1.0 - made.out_norm.eps)", "running_var.fill_(0.9)", TURNS),
    ("matryoshka/rotation.py", "torch.erf(distance / math.sqrt(8))", "distance.pow(4)", TURNS),
    # Other engines: when one is refused, which is taken, what a rewritten graph computes.
    ("runtimes/quantization.py", 'if not fastest.startswith("int8")', "if False", INT8),
    ("runtimes/quantization.py", "(1 + MOST_LOSS) * rate", "MOST_LOSS + rate", INT8),
    ("runtimes/timing.py", "if turn:", "if True:", INT8),
    ("runtimes/proof.py", "if not cosine >= LEAST[precision]", "if False", "export.py -k differs"),
    ("runtimes/loading.py", "min(seconds, key", "max(seconds, key", ENGINES),
    ("runtimes/onnx.py", "with contextlib.suppress(CheckpointError)", "if True", ENGINES),
    ("runtimes/engine.py", "waveform.shape[1] < self.min_samples", "False", ENGINES),
    ("runtimes/graph.py", "wide[rows, column : column + inputs]", "wide[rows, :inputs]", "graph.py"),
    ("runtimes/graph.py", "np.cumsum(arrays[1])[:-1]", "np.cumsum(arrays[1])[1:]", "graph.py"),
    # Shards: what is in them, and what is known of them.
    ("inference/bulk/folder.py", "elif known != where", "elif False", SHARDS),
    ("inference/bulk/folder.py", "recordings WHERE shard = ?", "recordings WHERE shard = -?", SHARDS),
    ("inference/bulk/folder.py", "and before[key] != value", "and False", SHARDS),
    ("inference/bulk/kaldi.py", "].decode(), begin, ", "].decode(), at, ", SHARDS),
    ("inference/bulk/parquet.py", "outcome.embedding[: model.dim]", "outcome.embedding[-model.dim :]", SHARDS),
    # Exits, and adapters.
    ("models/exits.py", "not 1 <= stage < count", "not 1 <= stage <= count", EXITS),
    ("models/exits.py", "config={**encoder.config, **settings}", "config=encoder.config", EXITS),
    ("models/adapters.py", "for key, value in self._kept.items()", "for key, value in ()", ADAPTERS),
    ("models/adapters.py", "if adapter.base != (found :=", "if not (found :=", ADAPTERS),
    ("models/low_rank.py", "self.scale = alpha / rank", "self.scale = alpha", ADAPTERS),
    ("models/low_rank.py", ' and getattr(layer, "groups", 1) == 1', "", ADAPTERS),
    ("models/low_rank.py", "rank * (rows + columns) < rows * columns", "rank < min(rows, columns)", ADAPTERS),
    ("models/low_rank.py", "encoder.requires_grad_(False)", "pass", ADAPTERS),
    # The command line.
    ("cli/main.py", "threading._shutdown()", "pass", "cli.py -k ends_after"),
    ("cli/main.py", "atexit._run_exitfuncs()", "pass", "cli.py -k ends_after"),
    ("errors.py", "len(known) <= few", "len(known) < few", "properties.py -k unknown_name"),
    ("cli/command.py", "            return [*result, *words[index:]]\n", "            pass\n", JSON),
    # Searching: the gradient of the architecture, ties, halves, what a step may depend on, boxes of a picture.
    ("nas/supernet.py", "products[number] = (gradient * output).sum()", "pass", GRADIENTS),
    ("nas/supernet.py", "_apply(operation, x, rectified)", "operation(rectified)", GRADIENTS),
    ("nas/derivation.py", "if name != NONE]", "]", "nas.py -k none"),
    ("nas/derivation.py", "key=lambda edge: -edge[1][0]", "key=lambda edge: edge[1][0]", "nas.py -k derivation"),
    ("nas/data.py", "offset=own[0].offset + middle", "offset=own[0].offset", "search.py -k halves"),
    ("nas/control.py", "config.seed, number)", "config.seed, id(batch))", "search.py -k continues"),
    ("nas/layout.py", "(left.width + right.width) / 2 + _GAP", "right.width / 2", "search.py -k box"),
)  # fmt: skip


def survives(fault: tuple[str, str, str, str]) -> str:
    """Why a fault was not caught; nothing if it was."""
    file, old, new, tests = fault
    with tempfile.TemporaryDirectory() as folder:
        for name in ("src", "tests", "docs", "tools", "configs", "pyproject.toml"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder)
        path = Path(folder, "src", "voxnest", file)
        code = path.read_text(encoding="utf-8")
        if old not in code:
            return "its text is no longer there"
        path.write_text(code.replace(old, new), encoding="utf-8")
        python = f"{sys.executable} -m pytest -x -q -p no:cacheprovider --timeout 300 "
        words = " ".join(f"tests/test_{word}" if word.endswith(".py") else word for word in tests.split(" "))
        environment = {**os.environ, "PYTHONPATH": f"{folder}/src", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(python + words, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 1 and " failed" in done.stdout else f"pytest ended with {done.returncode}"


def main() -> None:
    """Try all faults that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if not options.words or any(word in str(fault) for word in options.words)]
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for (file, old, new, tests), problem in zip(chosen, pool.map(survives, chosen), strict=True):
            survivors += bool(problem)
            change = " ".join(f"{old} -> {new or 'nothing'}".split())
            print(f"{problem or 'caught'}: {file}: {change} [{tests}]", flush=True)
    sys.exit(f"{survivors} of {len(chosen)} survive" if survivors else 0)


if __name__ == "__main__":
    main()
