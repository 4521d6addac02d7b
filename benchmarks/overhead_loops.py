"""Overhead, by hand: the work that every contender does, and the two loops written without any library.

In:    synthetic rows in tensors, a folder to write to.
Out:   a trained model, and a mark at the end of each epoch.
Next:  overhead_peers and overhead_ours do the same work; overhead.py measures them all.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 32
EVERY = 50  # steps between two points on TensorBoard
LR = 1e-3


@dataclass
class Work:
    """What is trained, for how long, and where files may go."""

    steps: int
    """Of an epoch."""
    epochs: int
    """The first is warm-up and not counted."""
    folder: Path
    typical: bool
    """Whether progress, running loss and accuracy, TensorBoard and checkpoints are on."""
    device: str = "cpu"
    marks: list[float] = field(default_factory=list)

    def mark(self) -> None:
        """Say that an epoch is over; called at the same place of each."""
        if self.device != "cpu":
            torch.accelerator.synchronize()
        self.marks.append(time.perf_counter())

    def step_times(self) -> list[float]:
        """Seconds a step, for each epoch after the first."""
        marks = self.marks[: self.epochs]
        return [(after - before) / self.steps for before, after in itertools.pairwise(marks)]

    def data(self, *, more: int = 0) -> tuple[Tensor, Tensor]:
        """Rows that can be learned: inputs (n, 64), targets (n,) of ten classes; `more`, never trained, at the end."""
        generator = torch.Generator().manual_seed(0)
        teacher = torch.randn(64, 10, generator=generator)
        trained, others = (torch.randn(rows, 64, generator=generator) for rows in (BATCH * self.steps, more))
        inputs = torch.cat((trained, others))
        return inputs, (inputs @ teacher).argmax(dim=1)

    def loader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The loader that everybody writes."""
        return DataLoader(TensorDataset(*self.data()), batch_size=BATCH, shuffle=True)

    def accuracy(self, model: nn.Module) -> float:
        """Of the rows that were trained on: whether the work was done at all."""
        inputs, targets = self.data()
        with torch.no_grad():
            return float((model.cpu().eval()(inputs).argmax(dim=1) == targets).float().mean())

    def new_model(self) -> nn.Module:
        """MLP 64-64-10."""
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(self.device)


def accuracy_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of right answers in a batch."""
    return (outputs.argmax(dim=1) == targets).float().mean()


def hand(work: Work) -> nn.Module:
    """The loop that everybody writes."""
    loader, model = work.loader(), work.new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    if work.typical:
        return _hand_typical(work, loader, model, optimizer)
    for _ in range(work.epochs):
        for inputs, targets in loader:
            inputs, targets = inputs.to(work.device), targets.to(work.device)
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        work.mark()
    return model


def _hand_typical(work: Work, loader: DataLoader, model: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    board, step = SummaryWriter(str(work.folder)), 0
    for epoch in range(work.epochs):
        running_loss = running_accuracy = 0.0
        bar = tqdm(loader)
        for batch, (inputs, targets) in enumerate(bar, 1):
            inputs, targets = inputs.to(work.device), targets.to(work.device)
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            running_loss += loss.item()
            running_accuracy += accuracy_of(outputs, targets).item()
            if step % EVERY == 0:
                board.add_scalar("loss", running_loss / batch, step)
                board.add_scalar("accuracy", running_accuracy / batch, step)
                bar.set_postfix(loss=running_loss / batch, accuracy=running_accuracy / batch)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, work.folder / f"{epoch}.pt")
        work.mark()
    board.close()
    return model


def best_hand(work: Work) -> nn.Module:
    """What an expert writes: whole-batch gather, fused optimizer, tensors read now and then, saving in a thread."""
    (inputs, targets), model = (data.to(work.device) for data in work.data()), work.new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    if work.typical:
        return _best_typical(work, inputs, targets, model, optimizer)
    for _ in range(work.epochs):
        for rows in torch.randperm(len(inputs), device=work.device).split(BATCH):
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        work.mark()
    return model


def _best_typical(
    work: Work, inputs: Tensor, targets: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer
) -> nn.Module:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    board, step, saving = SummaryWriter(str(work.folder)), 0, None
    for epoch in range(work.epochs):
        running = torch.zeros(2, device=work.device)
        bar = tqdm(torch.randperm(len(inputs), device=work.device).split(BATCH))
        for batch, rows in enumerate(bar, 1):
            wanted = targets[rows]
            outputs = model(inputs[rows])
            loss = nn.functional.cross_entropy(outputs, wanted)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            running += torch.stack((loss.detach(), accuracy_of(outputs.detach(), wanted)))
            step += 1
            if step % EVERY == 0:
                mean_loss, accuracy = (running / batch).tolist()
                board.add_scalar("loss", mean_loss, step)
                board.add_scalar("accuracy", accuracy, step)
                bar.set_postfix(loss=mean_loss, accuracy=accuracy)
        if saving:
            saving.join()
        saving = _save_behind(model, optimizer, work.folder / f"{epoch}.pt")
        work.mark()
    board.close()
    return model


def _save_behind(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> threading.Thread:
    import copy

    state = copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    thread = threading.Thread(target=torch.save, args=(state, path))
    thread.start()
    return thread
