"""Alignment: which tensors are trained, and that a resumed training gives the same bytes."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from limner.model.training.align import (
    BRIDGE,
    Aligner,
    AlignmentConfig,
    ParamGroup,
    StepRecord,
    learning_rate,
    load_state,
    param_groups,
    saved_states,
)
from limner.model.training.dataset import read_samples
from limner.model.vlm.fourkhd.annotator import FourKhdAnnotator
from limner.model.vlm.fourkhd.checkpoint import FourKhdFiles
from limner.model.vlm.fourkhd.runtime import RuntimeOptions, load_network
from limner.model.vlm.fourkhd.tokenizer import Tokenizer
from limner.pipelines.cli.main import app
from limner.pipelines.cli.terminal import Stopped
from limner.pipelines.train.align import align
from limner.readers.errors import ModelError, RequestError
from limner.readers.options import make_plugin
from safetensors.torch import load_file
from typer.testing import CliRunner

pytestmark = pytest.mark.slow

SETTINGS = AlignmentConfig(peak=3e-3, warmup=0.1, steps=6, batch=2, seed=7)


def aligner(base: Path, data: Path, **changes: Any) -> Aligner:
    files = FourKhdFiles.find(str(base))
    network = load_network(files, RuntimeOptions(device="cpu", dtype=changes.pop("dtype", "float32")))
    return Aligner(network, Tokenizer(files.tokenizer, "x"), read_samples(data), replace(SETTINGS, **changes))


def losses(one: Aligner) -> list[float]:
    rows: list[StepRecord] = []
    one.run(rows.append)
    return [row.loss for row in rows]


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors that differ."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert set(old) == set(new)
    return {name for name in old if not torch.equal(old[name], new[name])}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, base: Path, colours: Path) -> Path:
    """A training of six steps, never cut off."""
    out = tmp_path_factory.mktemp("straight")
    align(str(base), colours, out, SETTINGS, every=3, device="cpu", threads=1)
    return out


def test_only_projector_separators_and_partial_lora_are_trained(straight: Path, base: Path) -> None:
    names = changed(base, straight / "model")
    assert all(BRIDGE.fullmatch(name) for name in names)
    assert {"plora_glb_GN", "plora_sub_GN", "vision_proj.0.weight", "vision_proj.2.bias"} <= names
    # beyond its keys and values the last layer's visual tokens reach no word
    learnt = {name.removesuffix(".Plora_B.weight").rpartition(".")[2] for name in names if "layers.1." in name}
    assert {name for name in learnt if not name.endswith("weight")} == {"wqkv"}
    assert sum("layers.0." in name and "Plora_B" in name for name in names) == 5
    assert json.loads((straight / "model" / "config.json").read_text(encoding="utf-8"))["layout"] == "training"


def test_encoder_and_language_are_trained_on_request(tmp_path: Path, base: Path, colours: Path) -> None:
    settings = replace(SETTINGS, steps=2, encoder=True)
    names = changed(base, align(str(base), colours, tmp_path / "encoder", settings, device="cpu"))
    assert {name.partition(".")[0] for name in names if not BRIDGE.fullmatch(name)} == {"vit"}
    settings = replace(SETTINGS, steps=2, language=True)
    names = changed(base, align(str(base), colours, tmp_path / "language", settings, device="cpu"))
    assert {name.partition(".")[0] for name in names if not BRIDGE.fullmatch(name)} == {"model", "output"}


def test_learning_rates_decay_by_layer() -> None:
    encoder = "vit.vision_tower.vision_model."
    names = [
        (f"{encoder}embeddings.patch_embedding.weight", 4),
        (f"{encoder}encoder.layers.0.mlp.fc1.weight", 2),
        (f"{encoder}encoder.layers.1.mlp.fc1.bias", 1),
        ("vision_proj.0.weight", 2),
        ("model.layers.0.attention.wo.Plora_A.weight", 2),
        ("model.tok_embeddings.weight", 2),
        ("model.norm.weight", 1),
        ("output.weight", 2),
    ]
    found = param_groups(names, encoder=True, language=True, layers=2, layer_decay=0.9, language_scale=0.2)
    scales = [found[name].scale for name, _ in names]
    assert scales == pytest.approx([0.9**3, 0.9**2, 0.9, 1.0, 1.0, 0.2, 0.2, 0.2])
    assert [found[name].decayed for name, _ in names] == [False, True, False, True, True, False, False, True]
    bridge = param_groups(names, encoder=False, language=False, layers=2, layer_decay=0.9, language_scale=1.0)
    assert bridge == {"vision_proj.0.weight": ParamGroup(1.0, True), names[4][0]: ParamGroup(1.0, True)}


def test_the_learning_rate_has_a_linear_warmup_and_a_cosine_decay() -> None:
    rates = [learning_rate(step, steps=110, warmup=0.09, peak=1.0) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert learning_rate(0, steps=1, warmup=0.01, peak=2.0) > 0


def test_a_resumed_training_gives_the_same_bytes(tmp_path: Path, straight: Path, base: Path, colours: Path) -> None:
    def stop(row: StepRecord, steps: int) -> None:
        assert steps == 6
        if row.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(str(base), colours, tmp_path, SETTINGS, every=3, device="cpu", threads=1, on_step=stop)
    assert len((tmp_path / "losses.csv").read_text(encoding="utf-8").splitlines()) == 6
    assert [path.name for path in saved_states(tmp_path / "checkpoints")] == ["step-00000003"]
    (tmp_path / "checkpoints" / ".part-step-00000006").mkdir()  # as a crash in the middle of writing leaves it
    again: list[int] = []
    align(
        str(base),
        colours,
        tmp_path,
        SETTINGS,
        every=3,
        device="cpu",
        threads=1,
        on_step=lambda r, _: again.append(r.step),
    )
    assert again == [4, 5, 6]
    for name in ("losses.csv", "losses.png", "model/model.safetensors", "model/config.json"):
        assert (tmp_path / name).read_bytes() == (straight / name).read_bytes(), name
    assert [path.name for path in saved_states(tmp_path / "checkpoints")] == ["step-00000006"]


def test_a_finished_training_takes_no_steps(tmp_path: Path, straight: Path, base: Path, colours: Path) -> None:
    shutil.copytree(straight, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "model")
    align(
        str(base), colours, tmp_path / "out", SETTINGS, every=3, device="cpu", on_step=lambda *_: pytest.fail("a step")
    )
    for name in ("losses.csv", "losses.png", "model/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (straight / name).read_bytes()


def test_other_settings_are_refused(straight: Path, base: Path, colours: Path) -> None:
    with pytest.raises(RequestError, match=r"peak differ: peak was 0\.003 and is 0\.1"):
        align(str(base), colours, straight, replace(SETTINGS, peak=0.1), device="cpu")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, straight: Path, base: Path, colours: Path) -> None:
    shutil.copytree(straight, tmp_path / "out")
    (tmp_path / "out" / "checkpoints" / "step-00000006" / "optimizer.pt").write_bytes(b"PK")
    with pytest.raises(ModelError, match="step-00000006"):
        align(str(base), colours, tmp_path / "out", SETTINGS, device="cpu")


def test_accumulated_batches_equal_one_batch(base: Path, colours: Path) -> None:
    settings: dict[str, Any] = {"steps": 3, "dropout": 0.0}
    whole = aligner(base, colours, batch=6, **settings)
    parts = aligner(base, colours, batch=2, accumulate=3, **settings)
    single = aligner(base, colours, batch=1, accumulate=6, **settings)
    expected = losses(whole)
    assert expected[0] == pytest.approx(math.log(560), rel=0.1)  # of a token: a new model finds all of them alike
    assert losses(parts) == pytest.approx(expected, abs=2e-5)
    assert losses(single) == pytest.approx(expected, abs=2e-5)
    for name, tensor in whole.trained.items():
        assert (parts.trained[name] - tensor).abs().max() < 1e-3, name


def test_recomputing_changes_nothing_and_bfloat16_little(base: Path, colours: Path) -> None:
    settings: dict[str, Any] = {"steps": 3, "encoder": True, "language": True}
    expected = losses(aligner(base, colours, **settings))
    assert losses(aligner(base, colours, recompute=True, **settings)) == pytest.approx(expected, abs=1e-6)
    rough = losses(aligner(base, colours, bf16=True, **settings))
    assert rough == pytest.approx(expected, rel=0.02)
    assert rough != pytest.approx(expected, abs=1e-6)
    bridge = losses(aligner(base, colours, steps=3))
    assert losses(aligner(base, colours, steps=3, bf16=True, dtype="bfloat16")) == pytest.approx(bridge, rel=0.02)


def test_dropout_is_for_training_only(base: Path, colours: Path) -> None:
    one = aligner(base, colours, steps=2)
    losses(one)
    network: Any = one._network  # noqa: SLF001 - what it leaves behind
    ids, mask = torch.tensor([[1, 300, 301, 302]]), torch.tensor([[False, True, True, False]])
    assert not network.training
    with torch.no_grad():
        assert torch.equal(network(input_ids=ids, im_mask=mask).logits, network(input_ids=ids, im_mask=mask).logits)
        network.train()
        first, second = (network(input_ids=ids, im_mask=mask).logits for _ in range(2))
    assert not torch.equal(first, second)
    assert losses(aligner(base, colours, steps=3, dropout=0.0)) != losses(aligner(base, colours, steps=3, dropout=0.5))


def test_an_epoch_holds_every_sample_once(base: Path, colours: Path) -> None:
    one = aligner(base, colours, steps=0, epochs=2, batch=5)
    assert one.steps == 6  # twelve samples, five at a time, twice
    shown: list[int] = []
    for one.step in range(12):
        shown += [index for index, _ in one._order()]  # noqa: SLF001 - the order is the promise
    for epoch in range(5):
        assert sorted(shown[epoch * 12 : epoch * 12 + 12]) == list(range(12))
    assert shown[:12] != shown[12:24]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, base: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Aligner._loss  # noqa: SLF001 - spoilt on purpose

    def spoilt(self: Aligner, examples: Any) -> torch.Tensor:
        return whole(self, examples) * (math.nan if self.step == 4 else 1.0)

    monkeypatch.setattr(Aligner, "_loss", spoilt)
    with pytest.raises(ModelError, match=r"step 5 must have a finite loss.*nan"):
        align(str(base), colours, tmp_path, SETTINGS, every=2, device="cpu")
    state = load_state(tmp_path / "checkpoints")
    assert state is not None
    assert state.step == 4
    assert all(bool(tensor.isfinite().all()) for tensor in state.trained.values())
    assert not (tmp_path / "model").exists()


def test_a_learning_rate_that_diverges_is_refused(tmp_path: Path, base: Path, colours: Path) -> None:
    with pytest.raises(ModelError, match=r"step \d"):
        align(str(base), colours, tmp_path, replace(SETTINGS, peak=1e30), device="cpu")


def test_long_conversations_are_truncated_or_refused(base: Path, lines: Callable[..., Path]) -> None:
    result = {"image": "a.png", "question": "what?", "answer": "a red picture " * 40}
    whole = aligner(base, lines(result), steps=1)._example(0, 0)  # noqa: SLF001 - what is learnt
    cut = aligner(base, lines(result), steps=1, limit=60)._example(0, 0)  # noqa: SLF001 - the same
    assert cut.after == whole.after[: len(cut.after)]
    assert len(cut.before) + len(cut.after) + 6 + 1 + 6 == 60
    assert 0 < cut.target_count < whole.target_count
    with pytest.raises(RequestError, match=r"train\.jsonl, line 1.*20 tokens"):
        losses(aligner(base, lines(result), steps=1, limit=20))


def test_a_trained_model_answers_as_it_was_trained(tmp_path: Path, base: Path, colours: Path, view: Any) -> None:
    settings = replace(SETTINGS, steps=150, batch=12, peak=8e-3, encoder=True, language=True, layer_decay=1.0)
    model = align(str(base), colours, tmp_path, settings, device="cpu", threads=1)
    rows = (tmp_path / "losses.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert float(rows[0].split(",")[1]) > 1
    assert float(rows[-1].split(",")[1]) < 0.05
    annotator = make_plugin(FourKhdAnnotator, {"checkpoint": str(model), "labels": "blue,red,green"})
    assert annotator.identity["layout"] == "training"
    for name, colour in (("red", (190, 40, 40)), ("green", (40, 170, 60)), ("blue", (50, 60, 200))):
        [[answer]] = annotator.annotate([view(colour)])
        assert answer.label == name
        assert answer.numbers["agreement"] == 1.0


def test_a_signal_stops_it(tmp_path: Path, base: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(Aligner, "run", stop)
    asked = ["train", "align", str(base), "--data", str(colours), "--out", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 130
    assert "resumes from the last checkpoint" in done.output


def test_the_command_trains(tmp_path: Path, base: Path, colours: Path) -> None:
    asked = ["train", "align", str(base), "--data", str(colours), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*asked, "--steps", "2", "--train", "encoder", "--recompute", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "step 2 of 2: loss" in done.output
    assert FourKhdFiles.find(str(tmp_path / "out" / "model")).sizes().vision.image == 16
    for wrong, result in ((["--train", "all"], "encoder or language"), (["--layout", "x"], "benchmark")):
        refused = CliRunner().invoke(app, [*asked, *wrong])
        assert isinstance(refused.exception, RequestError)
        assert result in str(refused.exception)
