"""The loop on a task that is not segmentation: it must know none."""

import pytest
import torch
from torch import nn

from autoseg.errors import TrainingError
from autoseg.training import checkpoint
from autoseg.training.loop import Progress, Schedule, Stopped, TrainState, fit

ITERATIONS = 7


class Regression:
    """y = 3 a - 2 b, batches keyed by (epoch, iteration)."""

    def stream(self, epoch, iteration):
        for number in range(epoch * ITERATIONS + iteration, 100 * ITERATIONS):
            yield self._batch(number)

    def validation(self, epoch):
        yield self._batch(10_000 + epoch)

    def _batch(self, number):
        x = torch.randn(16, 2, generator=torch.Generator().manual_seed(number))
        return x, x @ torch.tensor([[3.0], [-2.0]])


class WorstError:
    def __init__(self):
        self.worst = 0.0

    def update(self, outputs, targets):
        self.worst = max(self.worst, (outputs - targets).abs().max().item())

    def result(self):
        return {"worst": self.worst}


def new_state():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    return TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True))


def train(state, epochs, folder=None, stop_after=None, rows=None):
    count = 0

    def stop():
        nonlocal count
        count += 1
        return count == stop_after

    schedule = Schedule(epochs, ITERATIONS, lambda epoch: 0.05 * (1 - epoch / epochs), gradient_clip=12)
    return fit(
        state,
        nn.functional.mse_loss,
        Regression(),
        WorstError,
        schedule,
        device=torch.device("cpu"),
        save=(lambda s: checkpoint.save(folder, s)) if folder else (lambda s: None),
        record=(rows if rows is not None else []).append,
        after_iteration=stop,
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True))


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
