"""`EquilibriumCallback` in the Trainer of transformers: training is the same without it."""

import copy
import gc
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.figures import FigureSink

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from jaynes_callbacks.huggingface import EquilibriumCallback  # noqa: E402
from jaynes_callbacks.run.surroundings import surroundings_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("unfitted")

Sample = dict[str, Tensor]
MakeTrainer = Callable[..., L.Trainer]
CLASSES = 4
#: The name of version 4 still works in version 5, with a warning.
CHECKPOINTING = (
    "activation_checkpointing"
    if hasattr(transformers.TrainingArguments, "activation_checkpointing")
    else "gradient_checkpointing"
)


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep transformers from printing its progress, and trackers from writing elsewhere."""
    monkeypatch.chdir(tmp_path)
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    yield
    transformers.utils.logging.set_verbosity(before)


def gpt2() -> Any:
    torch.manual_seed(7)
    sizes = {"vocab_size": 64, "n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 2}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))


def bert(dropout: float = 0.1) -> Any:
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return transformers.BertForSequenceClassification(config)


class Small(nn.Module):
    """A network of two layers; told so, it fails in a forward or in the backward pass of it."""

    def __init__(
        self, fails: int = 0, error: type[BaseException] = Exception, *, backward: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.act = nn.Linear(16, 64), nn.ReLU()
        self.last = nn.Linear(64, CLASSES)
        self.left, self.error, self.backward = fails, error, backward

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = self.act(self.first(input_ids / 64))
        self.left -= 1
        if self.left == 0:
            if not self.backward:
                raise self.error("on purpose")
            hidden.register_hook(self._fail)
        logits = self.last(hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def _fail(self, gradient: Tensor) -> None:
        raise self.error("on purpose")


def texts(number: int = 32) -> list[Sample]:
    """Samples for a language model."""
    source = torch.Generator().manual_seed(3)
    drawn = torch.randint(64, (number, 16), generator=source)
    return [{"input_ids": ids, "labels": ids} for ids in drawn]


def labelled(number: int = 32) -> list[Sample]:
    """Samples for a classifier."""
    source = torch.Generator().manual_seed(3)
    classes = torch.randint(CLASSES, (number,), generator=source)
    return [{**each, "labels": label} for each, label in zip(texts(number), classes, strict=True)]


def trainer(
    model: nn.Module, data: Any, *callbacks: Any, kind: type[Any] | None = None, **changes: Any
) -> Any:
    options: dict[str, Any] = {
        "output_dir": "out",
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    own = {
        name: changes.pop(name) for name in ("compute_loss_func", "optimizers") if name in changes
    }
    arguments = transformers.TrainingArguments(**{**options, **changes})
    made = (kind or transformers.Trainer)(
        model, arguments, train_dataset=data, eval_dataset=data, callbacks=list(callbacks), **own
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def watching(**options: Any) -> Any:
    """Watch three streams of `gpt2`, unless told otherwise."""
    return EquilibriumCallback(**{"sinks": [], "every_n_steps": 2, "include": "*.mlp.*", **options})


def hooks(model: nn.Module) -> int:
    """Count the hooks on forwards, besides those of transformers."""
    return sum(
        not getattr(hook, "__module__", "").startswith("transformers")
        for module in model.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in kind.values()
    )


def losses(made: Any) -> list[tuple[str, float]]:
    names = ("loss", "eval_loss", "grad_norm", "train_loss")
    return [(name, row[name]) for row in made.state.log_history for name in names if name in row]


def assert_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


# The watched training is the unwatched one --------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "samples", "options"),
    [
        (gpt2, texts, {"gradient_accumulation_steps": 2}),
        (
            gpt2,
            texts,
            {
                "gradient_accumulation_steps": 4,
                "bf16": True,
                CHECKPOINTING: True,
                "eval_strategy": "steps",
                "eval_steps": 1,
            },
        ),
        (bert, labelled, {"max_steps": 5, "max_grad_norm": 0.0}),
    ],
    ids=["gpt2", "gpt2, all at once", "bert"],
)
@pytest.mark.sampled(2)
def test_training_is_as_before(make: Any, samples: Any, options: dict[str, Any]) -> None:
    plain = trainer(make(), samples(), **options)
    plain.train()
    draws = torch.get_rng_state()

    names = ["magnitudes", "gradients", "neurons"]
    callback = watching(instruments=names, iota_every_n_batches=1, include="*")
    watched = trainer(make(), samples(), callback, **options)
    watched.train()
    assert torch.equal(torch.get_rng_state(), draws)
    assert_same(watched.model, plain.model)
    assert losses(watched) == losses(plain)
    steps = watched.state.global_step
    assert callback.history.step.max() == steps
    assert {2, 4} <= set(callback.history_of("gradients").step)
    assert hooks(watched.model) == 0


class Task(L.LightningModule):
    """BERT under Lightning, with the mean loss of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.model = bert(dropout=0.0)

    def training_step(self, batch: Sample) -> Tensor:
        return nn.functional.cross_entropy(self.model(**batch).logits, batch["labels"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class InOrder(transformers.Trainer):  # type: ignore[name-defined,misc]
    """Trains with the batches in their order, and with the loss and the optimizer of `Task`."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        self.model_accepts_loss_kwargs = False  # The mean of each batch, divided by their number.
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


def without_prefix(frame: pd.DataFrame) -> pd.DataFrame:
    names = frame.name.str.removeprefix("model.")
    return frame.assign(name=names).drop(columns="run")


@pytest.mark.parametrize("accumulated", [2, 4])
def test_records_are_those_of_the_same_model_under_lightning(
    accumulated: int, make_trainer: MakeTrainer
) -> None:
    """Neither evaluation nor what checkpointing repeats is counted."""
    instruments = ["magnitudes", "gradients"]
    options: dict[str, Any] = {"instruments": instruments, "every_n_steps": 3, "sinks": []}
    options |= {"iota_every_n_batches": 3, "include": "*intermediate*"}
    monitor, task = EquilibriumMonitor(**options), Task()
    make_trainer(monitor, max_epochs=2, accumulate_grad_batches=accumulated).fit(
        task, DataLoader(labelled(), 4)
    )

    model = bert(dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    callback = EquilibriumCallback(**options)
    made = trainer(
        model,
        labelled(),
        callback,
        kind=InOrder,
        optimizers=(optimizer, constant),
        gradient_accumulation_steps=accumulated,
        max_grad_norm=0.0,
        eval_strategy="steps",
        eval_steps=1,
        **{CHECKPOINTING: True},
    )
    made.train()
    assert_same(made.model, task.model)
    for name in instruments:
        expected = without_prefix(monitor.history_of(name))
        assert len(set(expected.step)) >= 3
        pd.testing.assert_frame_equal(without_prefix(callback.history_of(name)), expected)


# Steps, batches and epochs ------------------------------------------------------------------------


def test_records_are_made_by_epoch_and_at_the_end() -> None:
    callback = watching(every_n_steps=None, kinds="weight")
    trainer(gpt2(), texts(), callback, max_steps=19).train()
    found = callback.history.groupby("step").epoch.first()
    assert found.to_dict() == {0: 0, 8: 0, 16: 1, 19: 2}


def test_the_last_batches_of_an_epoch_may_be_fewer() -> None:
    callback = watching(every_n_steps=None, iota_every_n_batches=1)
    trainer(gpt2(), texts(28), callback, gradient_accumulation_steps=2).train()
    history = callback.history
    assert history.groupby("step").epoch.first().to_dict() == {0: 0, 4: 0, 8: 1}
    counted = history[history.kind == "iota"].groupby("step").agg({"n": "max", "zeros": "max"})
    # Of 4 samples, 16 tokens and 128 hidden neurons.
    batch = 4 * 16 * 128  # values
    assert counted.n.tolist() == [batch, 6 * batch, 7 * batch]


class Stream(IterableDataset[Sample]):
    """Samples of which nobody knows how many there are."""

    def __iter__(self) -> Iterator[Sample]:
        return iter(texts(20))


def test_a_stream_of_unknown_length_is_recorded_where_it_begins_anew() -> None:
    callback = watching(every_n_steps=None, kinds="weight")
    trainer(gpt2(), Stream(), callback, max_steps=12).train()
    assert callback.history.step.unique().tolist() == [0, 5, 10, 12]


def test_the_module_that_is_called_may_be_compiled() -> None:
    def history(**options: Any) -> pd.DataFrame:
        callback = watching(iota_every_n_batches=1, include="*")
        made = trainer(Small(), labelled(16), callback, num_train_epochs=1, **options)
        made.train()
        # The graph does not tell the shape of activations.
        return callback.history.drop(columns=["run", "shape"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of torch, while it compiles.
        compiled = history(torch_compile=True, torch_compile_backend="eager")
    torch._dynamo.reset()
    assert set(compiled.kind) == {"weight", "iota"}
    pd.testing.assert_frame_equal(compiled, history())


def test_two_trainings_of_one_callback_are_two_runs(tmp_path: Path) -> None:
    callback = watching(kinds="weight")
    for _ in range(2):
        trainer(gpt2(), texts(), callback, num_train_epochs=1).train()
        assert callback.history.step.unique().tolist() == [0, 2, 4, 6, 8]
        assert len(set(callback.history.run)) == 1


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="iota_from must be 'train'"):
        EquilibriumCallback(iota_from="validation")
    with pytest.raises(ValueError, match="no_such_layer"):
        trainer(gpt2(), texts(), watching(include="no_such_layer")).train()
    with pytest.raises(TypeError, match="every_n_step"):
        EquilibriumCallback(every_n_step=3)


# Checkpoints --------------------------------------------------------------------------------------


class Failure(transformers.TrainerCallback):  # type: ignore[name-defined,misc]
    """Raises an exception when an event comes for the n-th time."""

    def __init__(self, event: str, times: int, error: type[BaseException] = KeyboardInterrupt):
        self.left, self.error = times, error
        setattr(self, event, self._fail)

    def _fail(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error("on purpose")


RESUMED: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 1,
    "num_train_epochs": 2,
}


def recorded(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "jaynes").drop(columns="run")


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    instruments = ["magnitudes", "gradients"]

    def made(folder: str, *more: Any) -> tuple[Any, Any]:
        callback = watching(
            instruments=instruments,
            sinks=[DatasetSink()],
            every_n_steps=3,
            iota_every_n_batches=3,
        )
        return trainer(gpt2(), texts(), callback, *more, output_dir=folder, **RESUMED), callback

    whole, uninterrupted = made("whole")
    whole.train()

    first, callback = made("parts", Failure("on_step_end", 5))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert callback.history.step.unique().tolist() == [0, 3, 4]
    saved = torch.load("parts/checkpoint-3/jaynes.pt", weights_only=True)
    assert saved["recorded_step"] == 3

    second, resumed = made("parts")
    Path("parts/checkpoint-3").rename("elsewhere")
    second.train(resume_from_checkpoint="elsewhere")
    assert [path.name for path in Path("parts").glob("checkpoint-*")] == ["checkpoint-8"]
    assert_same(second.model, whole.model)
    for name in instruments:
        expected = uninterrupted.history_of(name).drop(columns="run")
        pd.testing.assert_frame_equal(resumed.history_of(name).drop(columns="run"), expected)
    pd.testing.assert_frame_equal(recorded(Path("parts")), recorded(Path("whole")))
    description = json.loads(Path("parts/jaynes/_run.json").read_text())
    assert description["outcome"] == "finished"
    assert description["hyperparameters"]["learning_rate"] == 1e-2
    assert description["trainer"]["accumulate_grad_batches"] == 2


def test_a_checkpoint_without_our_file_begins_records_anew(tmp_path: Path) -> None:
    trainer(gpt2(), texts(), **RESUMED).train()
    callback = watching(kinds="weight", every_n_steps=None)
    resumed = trainer(gpt2(), texts(), callback, **{**RESUMED, "num_train_epochs": 3})
    resumed.train(resume_from_checkpoint=True)
    assert callback.history.groupby("step").epoch.first().to_dict() == {8: 2, 12: 2}

    Path("out/checkpoint-12/jaynes.pt").write_bytes(b"no file of torch's")
    callback = watching(kinds="weight", every_n_steps=None)
    resumed = trainer(gpt2(), texts(), callback, **{**RESUMED, "num_train_epochs": 4})
    with pytest.warns(UserWarning, match="records begin anew"):
        resumed.train(resume_from_checkpoint=True)
    assert callback.history.step.unique().tolist() == [12, 16]


def test_two_callbacks_have_a_file_each(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [watching(kinds=kind, every_n_steps=None) for kind in ("weight", "iota")]

    options = {**RESUMED, "num_train_epochs": 1}
    trainer(gpt2(), texts(), *callbacks(), **options).train()
    assert Path("out/checkpoint-4/jaynes-1.pt").is_file()
    weights, activations = resumed = callbacks()
    trainer(gpt2(), texts(), *resumed, **RESUMED).train(resume_from_checkpoint=True)
    assert set(weights.history.kind) == {"weight"}
    assert set(activations.history.kind) == {"iota"}
    assert weights.start["step"].tolist() == [0] * len(weights.start)


def test_the_best_model_is_not_recorded_as_the_last_state(tmp_path: Path) -> None:
    options = {**RESUMED, "eval_strategy": "steps", "eval_steps": 3, "save_total_limit": None}
    options["metric_for_best_model"] = "equilibrium/weight/gap_median"
    callback = watching(kinds="weight", every_n_epochs=None, every_n_steps=None)
    best = trainer(gpt2(), texts(), callback, load_best_model_at_end=True, **options)
    best.train()
    last = watching(kinds="weight", every_n_epochs=None, every_n_steps=None)
    trainer(gpt2(), texts(), last, **{**options, "output_dir": "plain"}).train()
    assert best.state.best_model_checkpoint.endswith("checkpoint-3")
    pd.testing.assert_frame_equal(
        callback.history.drop(columns="run"), last.history.drop(columns="run")
    )


# Deciding by our numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
def test_training_stops_early_by_the_gap(first: bool, tmp_path: Path) -> None:
    callback = watching(kinds="weight", every_n_steps=1)
    stopping = transformers.EarlyStoppingCallback(early_stopping_patience=2)
    made = trainer(
        gpt2(),
        texts(),
        *([stopping, callback] if first else [callback, stopping]),
        num_train_epochs=4,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="equilibrium/weight/gap_median",
        greater_is_better=True,
    )
    made.train()
    gaps = callback.history.groupby("step").gap.median()
    best = int(gaps[1:].idxmax())
    assert made.state.global_step == best + 2 < made.state.max_steps
    assert made.state.best_metric == pytest.approx(gaps[best])
    assert made.state.best_global_step == best
    assert not any("equilibrium" in name for name in made.evaluate())


# Exceptions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "backward"),
    [(RuntimeError, False), (KeyboardInterrupt, False), (KeyboardInterrupt, True)],
)
@pytest.mark.sampled(2)
def test_an_exception_leaves_no_hook_and_loses_no_record(
    error: type[BaseException], backward: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers.utils.logging.set_verbosity_warning()
    model = Small(5, error, backward=backward)
    callback = watching(sinks=[DatasetSink()], include="*")
    made = trainer(model, labelled(), callback, num_train_epochs=1)
    try:
        made.train()
    except error:
        assert callback.history.step.max() == 4
    else:
        raise AssertionError("training came to its end")
    gc.collect()
    assert hooks(model) == 0
    assert callback.history.step.unique().tolist() == [0, 2, 4]
    assert pd.read_parquet("out/jaynes").step.max() == 4
    assert json.loads(Path("out/jaynes/_run.json").read_text())["outcome"] == "interrupted"
    assert "interrupted after step 4" in capsys.readouterr().err

    with pytest.warns(UserWarning, match="holds another run's records"):
        made.train()
    assert callback.history.step.max() == 8
    assert json.loads(Path("out/jaynes-1/_run.json").read_text())["outcome"] == "finished"
    assert hooks(model) == 0


def test_while_its_traceback_is_kept_the_next_training_ends_a_run() -> None:
    callback = watching(kinds="weight", sinks=[DatasetSink()])
    made = trainer(gpt2(), texts(), callback, Failure("on_step_end", 3))
    with pytest.raises(KeyboardInterrupt) as kept:
        made.train()
    assert kept.value.__traceback__ is not None
    assert callback.history.step.unique().tolist() == [0, 2]
    with pytest.warns(UserWarning, match="holds another run's records"):
        made.train()
    outcomes = [json.loads(path.read_text())["outcome"] for path in Path("out").glob("*/_run.json")]
    assert sorted(outcomes) == ["finished", "interrupted"]
    assert callback.history.step.max() == made.state.max_steps


def test_a_callback_that_no_trainer_calls_finds_nothing_around_it() -> None:
    around = surroundings_of(watching())
    assert (around.callbacks, around.called, around.checkpoint) == ([], None, None)
    around.put_first(None)
    around.when_left(lambda: None)


# What others get ----------------------------------------------------------------------------------


class Asked:
    """A sink that keeps what it is told of the run."""

    def open(self, context: RunContext) -> None:
        self.context = context

    def write(self, records: Frame[Any], history: Any) -> None:
        pass

    def close(self, start: Frame[Any], end: Frame[Any], history: Any) -> None:
        self.writers_are_open = all(
            getattr(each, "file_writer", True) for each in self.context.loggers
        )


def test_trackers_are_those_that_the_trainer_reports_to(tmp_path: Path) -> None:
    writer_callback = pytest.importorskip("transformers.integrations").TensorBoardCallback()
    sink = Asked()
    made = trainer(gpt2(), texts(8), watching(sinks=[sink]), writer_callback)
    seen = []

    class Look(transformers.TrainerCallback):  # type: ignore[name-defined,misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append(writer_callback.tb_writer)

    made.add_callback(Look())
    made.train()
    assert list(sink.context.loggers) == [seen[0]]
    assert sink.writers_are_open, "sinks finish before the Trainer closes its writer"
    assert sink.context.directory == Path("out")


def test_the_end_is_told_where_the_trainer_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    transformers.utils.logging.set_verbosity_warning()
    trainer(gpt2(), texts(8), watching(sinks=[DatasetSink()])).train()
    said = capsys.readouterr().err
    assert "jaynes_callbacks: watching 2 weights" in said
    assert "report out/jaynes" in said
    transformers.utils.logging.set_verbosity_error()
    trainer(gpt2(), texts(8), watching()).train()
    assert "jaynes_callbacks" not in capsys.readouterr().err


def test_copies_keep_what_was_recorded() -> None:
    callback = watching(kinds="weight")
    made = trainer(gpt2(), texts(), callback)
    made.train()
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        pd.testing.assert_frame_equal(copied.history, callback.history)
    assert "EquilibriumCallback: magnitudes, scales; 2 streams" in repr(callback)


@pytest.mark.slow
def test_the_page_of_the_trainer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FigureSink, "close", lambda *_: None)
    page = Path(__file__).parents[2] / "docs" / "huggingface.md"
    script, stopping = re.findall(
        r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(script.splitlines()) < 25
    names: dict[str, Any] = {}
    exec(compile(script, str(page), "exec"), names)
    assert Path("gpt2/jaynes-report.html").is_file()
    assert names["callback"].history.step.unique().tolist() == [0, 32, 64]
    exec(compile(stopping, str(page), "exec"), names)
    state = names["trainer"].state
    assert 0 < state.best_metric < 1
    assert Path(state.best_model_checkpoint, "jaynes.pt").is_file()


# Trainers that inherit it -------------------------------------------------------------------------


def vocabulary() -> Any:
    """Make a tokenizer of four words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    Path("vocab.txt").write_text("\n".join(words))
    return transformers.BertTokenizerFast.from_pretrained(".", eos_token="[SEP]")


def test_the_trainer_of_sentence_transformers_is_watched() -> None:
    library = pytest.importorskip("sentence_transformers")
    losses = pytest.importorskip("sentence_transformers.losses")
    datasets = pytest.importorskip("datasets")
    bert().bert.save_pretrained("model")
    vocabulary().save_pretrained("model")
    model = library.SentenceTransformer("model", device="cpu")
    data = datasets.Dataset.from_dict({"anchor": ["a b", "c d"] * 8, "positive": ["a", "c"] * 8})
    callback = watching(include="*")
    library.SentenceTransformerTrainer(
        model=model,
        args=library.SentenceTransformerTrainingArguments(
            "out", max_steps=2, report_to="none", save_strategy="no", use_cpu=True
        ),
        train_dataset=data,
        loss=losses.MultipleNegativesRankingLoss(model),
        callbacks=[callback],
    ).train()
    assert set(callback.history.kind) == {"weight", "iota"}
    assert callback.history.step.unique().tolist() == [0, 2]


def test_the_trainer_of_trl_is_watched() -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    callback = watching(include="*.mlp.*")
    trl.SFTTrainer(
        model=gpt2(),
        args=trl.SFTConfig(
            "out", max_steps=2, report_to="none", save_strategy="no", use_cpu=True, bf16=False
        ),
        train_dataset=datasets.Dataset.from_dict({"text": ["a b c d", "d c b a"] * 8}),
        processing_class=vocabulary(),
        callbacks=[callback],
    ).train()
    assert set(callback.history.kind) == {"weight", "iota"}
    assert callback.history.step.unique().tolist() == [0, 2]


# Ranks --------------------------------------------------------------------------------------------

RANKS = """
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from jaynes_callbacks.huggingface import EquilibriumCallback
from jaynes_callbacks.sinks.dataset import DatasetSink
from tests.run.test_huggingface import gpt2, texts


class Skipping(Trainer):
    def training_step(self, model, inputs, *rest, **named):
        # Rank 1 leaves out a batch that is accumulated, so that its forward is never called.
        if self.state.global_step == 0 and self.args.process_index == 1 and not self.synchronises:
            return torch.zeros(())
        return super().training_step(model, inputs, *rest, **named)

    @property
    def synchronises(self):
        return self.accelerator.gradient_state.sync_gradients


callback = EquilibriumCallback(include="*.mlp.*", every_n_steps=2, sinks=[DatasetSink()])
arguments = TrainingArguments(
    "out", num_train_epochs=2, per_device_train_batch_size=2, gradient_accumulation_steps=2,
    report_to="none", save_strategy="steps", save_steps=3, use_cpu=True, ddp_backend="gloo",
    eval_strategy="steps", eval_steps=1, metric_for_best_model="equilibrium/weight/gap_median",
    disable_tqdm=True,
)
data = {"train_dataset": texts(), "eval_dataset": texts(4)}
made = Skipping(gpt2(), arguments, callbacks=[callback], **data)
made.train()
rank = arguments.process_index
callback.history.drop(columns="run").to_parquet(f"history-{rank}.parquet")
Path(f"dataset-{rank}.txt").write_text(str(callback.dataset))
"""


@pytest.mark.slow
def test_two_ranks_write_one_dataset(tmp_path: Path) -> None:
    Path("ranks.py").write_text(RANKS)
    home = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-port=0", "--standalone", "ranks.py"]
    subprocess.run(command, env=environment, check=True, timeout=280)
    first, second = (pd.read_parquet(f"history-{rank}.parquet") for rank in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert sorted(set(first.step)) == [0, 2, 4, 6, 8]
    assert Path("dataset-0.txt").read_text() == "out/jaynes"
    assert Path("dataset-1.txt").read_text() == "None"
    assert len(pd.read_parquet("out/jaynes")) == len(first)
    assert Path("out/checkpoint-3/jaynes.pt").is_file()
