"""The loop on a task that is not segmentation: it must know none."""

import pytest
import torch
from torch import nn

from autoseg.errors import TrainingError
from autoseg.training import checkpoint
from autoseg.training.loop import EarlyStop, Schedule, Stopped, fit
from autoseg.training.state import Progress, TrainState, WeightAverage
from autoseg.training.step import Step

ITERATIONS = 7


class Regression:
    """y = 3 a - 2 b, batches keyed by (epoch, iteration)."""

    def stream(self, epoch, iteration):
        for number in range(epoch * ITERATIONS + iteration, 100 * ITERATIONS):
            yield self._batch(number)

    def validation(self, epoch):
        yield self._batch(10_000 + epoch)

    def _batch(self, number):
        x = torch.randn(16, 2, generator=torch.Generator().manual_seed(number % 2**31))
        return x, x @ torch.tensor([[3.0], [-2.0]])


class WorstError:
    def __init__(self):
        self.worst = 0.0

    def update(self, outputs, targets):
        self.worst = max(self.worst, (outputs - targets).abs().max().item())

    def result(self):
        return {"worst": self.worst}


def new_state(everything=False):
    """A small network with SGD, or with AdamW, an average of its weights, and a loss scale that grows after every third step."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    if everything:
        scaler = torch.amp.GradScaler("cpu", growth_interval=3)
        return TrainState(model, torch.optim.AdamW(model.parameters(), lr=0.1), scaler, average=WeightAverage(model, 0.9))
    return TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True))


def choosing(patience=50):
    return EarlyStop(lambda: iter([Regression()._batch(-1)]), lambda found: -found["worst"], patience)


def train(state, epochs, folder=None, stop_after=None, rows=None, early_stop=None, accumulation=1):
    count = 0

    def stop():
        nonlocal count
        count += 1
        return count == stop_after

    schedule = Schedule(epochs, ITERATIONS, lambda epoch: 0.05 * (1 - epoch / epochs))
    return fit(
        state,
        Step(nn.functional.mse_loss, torch.device("cpu"), accumulation=accumulation, couples_samples=False),
        Regression(),
        WorstError,
        schedule,
        save=(lambda s: checkpoint.save(folder, s)) if folder else (lambda s: None),
        early_stop=early_stop,
        record=(rows if rows is not None else []).append,
        after_iteration=stop,
    )


def same(a, b):
    return equal(a.model.state_dict(), b.model.state_dict())


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns_and_records():
    rows = []
    train(new_state(), 20, rows=rows)
    assert [row["epoch"] for row in rows] == list(range(20))
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    assert rows[-1]["worst"] < rows[0]["worst"]
    assert rows[3]["lr"] == pytest.approx(0.05 * (1 - 3 / 20))


@pytest.mark.parametrize("stop_after", [1, 6, 7, 8, 20, 27])
def test_stopping_anywhere_and_resuming_gives_the_same_weights(tmp_path, stop_after):
    whole = train(new_state(), 4)
    with pytest.raises(Stopped):
        train(new_state(), 4, tmp_path, stop_after)
    state = new_state()
    nn.init.zeros_(state.model[0].weight)  # whatever stands in the new process must not matter
    assert checkpoint.load(tmp_path, state)
    assert (state.progress.epoch * ITERATIONS + state.progress.iteration) == stop_after
    rows = []
    assert same(train(state, 4, tmp_path, rows=rows), whole)
    assert rows[-1]["epoch"] == 3


@pytest.mark.parametrize("stop_after", [3, 7, 20])
def test_the_same_with_an_average_a_choice_another_optimiser_and_micro_batches(tmp_path, stop_after):
    def parts(state):
        return [state.model.state_dict(), state.average.model.state_dict(), state.chosen.weights]

    whole = train(new_state(everything=True), 5, early_stop=choosing(), accumulation=3)
    with pytest.raises(Stopped):
        train(new_state(everything=True), 5, tmp_path, stop_after, early_stop=choosing(), accumulation=3)
    state = new_state(everything=True)
    assert checkpoint.load(tmp_path, state)
    train(state, 5, tmp_path, early_stop=choosing(), accumulation=3)
    assert all(equal(a, b) for a, b in zip(parts(state), parts(whole), strict=True))
    assert (state.chosen.epoch, state.chosen.score) == (whole.chosen.epoch, whole.chosen.score)
    assert state.scaler.state_dict() == whole.scaler.state_dict()
    again = new_state(everything=True)
    checkpoint.load(tmp_path, again)
    assert all(equal(a, b) for a, b in zip(parts(again), parts(whole), strict=True))
    assert again.optimiser.state_dict()["param_groups"] == whole.optimiser.state_dict()["param_groups"]


def test_the_average_is_what_is_judged_and_what_comes_out():
    rows, plain = [], []
    state = train(new_state(everything=True), 2, rows=rows)
    state_without = new_state(everything=True)
    state_without.average = None
    train(state_without, 2, rows=plain)
    assert same(state, state_without), "an average changes nothing of what is learned"
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    assert all(a["validation_loss"] != b["validation_loss"] for a, b in zip(rows, plain, strict=True))
    assert equal(state.result, state.average.model.state_dict())
    assert not equal(state.result, state.model.state_dict())
    assert equal(state_without.result, state_without.model.state_dict())


class TestEarlyStop:
    @staticmethod
    def run(scores, patience, epochs=10, folder=None):
        """Trains with the given score after each epoch."""
        rows, weights = [], []
        state = new_state()
        early_stop = EarlyStop(lambda: iter([Regression()._batch(1)]), lambda _: scores[state.progress.epoch], patience)
        schedule = Schedule(epochs, ITERATIONS, lambda _: 0.05)

        def save(reached):
            weights.append({name: tensor.clone() for name, tensor in reached.model.state_dict().items()})
            if folder:
                checkpoint.save(folder, reached)

        step = Step(nn.functional.mse_loss, torch.device("cpu"))
        fit(state, step, Regression(), WorstError, schedule, early_stop=early_stop, save=save, record=rows.append)
        return state, rows, weights

    def test_the_best_epochs_weights_are_kept_and_training_ends_when_none_gets_better(self, tmp_path):
        scores = [1, 3, 2, 5, 4, 5, 4, 9]
        state, rows, weights = self.run(scores, patience=3, folder=tmp_path)
        assert (state.chosen.epoch, state.chosen.score, state.progress.epoch) == (3, 5, 7), "an equal score is not better"
        assert equal(state.result, weights[3])
        assert not same(state, TrainState(_with(weights[3]), state.optimiser))
        assert [row["inner"]["best_epoch"] for row in rows] == [0, 1, 1, 3, 3, 3, 3]
        assert [row["inner"]["score"] for row in rows] == scores[:7]
        resumed = new_state()
        checkpoint.load(tmp_path, resumed)
        train(resumed, 10, early_stop=choosing(patience=3))
        assert resumed.progress.epoch == 7, "stopped once is stopped"
        assert equal(resumed.result, weights[3])

    def test_getting_better_to_the_end_trains_to_the_end(self):
        state, rows, weights = self.run(range(10), patience=1, epochs=4)
        assert (state.chosen.epoch, len(rows)) == (3, 4)
        assert equal(state.result, weights[3])


def _with(weights):
    model = new_state().model
    model.load_state_dict(weights)
    return model


def test_mean_loss_of_an_epoch_does_not_depend_on_a_stop(tmp_path):
    rows, resumed = [], []
    train(new_state(), 1, rows=rows)
    with pytest.raises(Stopped):
        train(new_state(), 1, tmp_path, 3)
    state = new_state()
    checkpoint.load(tmp_path, state)
    train(state, 1, tmp_path, rows=resumed)
    assert resumed[0]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-6)


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_last_checkpoint(tmp_path):
    state = train(new_state(), 2, tmp_path)
    with torch.no_grad():
        state.model[0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss became nan in epoch 2"):
        train(state, 4, tmp_path)
    intact = new_state()
    assert checkpoint.load(tmp_path, intact)
    assert intact.progress == Progress(epoch=2)
    assert torch.isfinite(intact.model[0].weight).all()


def test_a_trained_model_does_not_train_on():
    state = train(new_state(), 2)
    before = [p.clone() for p in state.model.parameters()]
    train(state, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_a_score_that_is_no_number_chooses_nothing(tmp_path):
    scores, rows = iter([float("nan"), -2.0, float("nan"), -1.0]), []
    stop = EarlyStop(lambda: iter([Regression()._batch(-1)]), lambda found: next(scores), 50)
    state = train(new_state(), 4, early_stop=stop, rows=rows)
    assert (state.chosen.epoch, state.chosen.score) == (3, -1.0)
    assert [row["inner"]["best_epoch"] for row in rows] == [None, 1, 1, 3]
