"""Overhead, by other libraries: the same work as their own pages show it.

In:    the work of overhead_loops.
Out:   a trained model, and a mark at the end of each epoch.
Next:  overhead.py measures them.
"""

from __future__ import annotations

from typing import Any

import torch
from overhead_loops import BATCH, EVERY, LR, Work, accuracy_of
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def fabric(work: Work) -> nn.Module:
    """The hand-written loop with Fabric's lines in it."""
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import TensorBoardLogger

    loggers = [TensorBoardLogger(work.folder)] if work.typical else []
    fabric = Fabric(accelerator=work.device, devices=1, loggers=loggers)
    fabric.launch()
    bare = work.new_model()
    model, optimizer = fabric.setup(bare, torch.optim.AdamW(bare.parameters(), lr=LR))
    loader = fabric.setup_dataloaders(work.loader())
    if work.typical:
        _fabric_typical(work, fabric, model, optimizer, loader)
        return bare
    for _ in range(work.epochs):
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
        work.mark()
    return bare


def _fabric_typical(work: Work, fabric: Any, model: Any, optimizer: Any, loader: Any) -> None:
    from tqdm import tqdm

    step = 0
    for epoch in range(work.epochs):
        running_loss = running_accuracy = 0.0
        bar = tqdm(loader)
        for batch, (inputs, targets) in enumerate(bar, 1):
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            step += 1
            running_loss += loss.item()
            running_accuracy += accuracy_of(outputs, targets).item()
            if step % EVERY == 0:
                means = {"loss": running_loss / batch, "accuracy": running_accuracy / batch}
                fabric.log_dict(means, step=step)
                bar.set_postfix(means)
        fabric.save(work.folder / f"{epoch}.ckpt", {"model": model, "optimizer": optimizer})
        work.mark()


def accelerate(work: Work) -> nn.Module:
    """The hand-written loop with accelerate's lines in it."""
    from accelerate import Accelerator

    accelerator = Accelerator(
        cpu=work.device == "cpu", **({"log_with": "tensorboard"} if work.typical else {}), project_dir=work.folder
    )
    bare = work.new_model()
    prepared = accelerator.prepare(bare, torch.optim.AdamW(bare.parameters(), lr=LR), work.loader())
    if work.typical:
        _accelerate_typical(work, accelerator, *prepared)
        return bare
    model, optimizer, loader = prepared
    for _ in range(work.epochs):
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        work.mark()
    return bare


def _accelerate_typical(work: Work, accelerator: Any, model: Any, optimizer: Any, loader: Any) -> None:
    from tqdm import tqdm

    accelerator.init_trackers("overhead")
    step = 0
    for epoch in range(work.epochs):
        running_loss = running_accuracy = 0.0
        bar = tqdm(loader)
        for batch, (inputs, targets) in enumerate(bar, 1):
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            step += 1
            running_loss += loss.item()
            running_accuracy += accuracy_of(outputs, targets).item()
            if step % EVERY == 0:
                means = {"loss": running_loss / batch, "accuracy": running_accuracy / batch}
                accelerator.log(means, step=step)
                bar.set_postfix(means)
        accelerator.save_state(str(work.folder / f"{epoch}"))
        work.mark()
    accelerator.end_training()


def ignite(work: Work) -> nn.Module:
    """An Engine of ignite with its own handlers."""
    from ignite.engine import Engine, Events

    model = work.new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def update(engine: Engine, batch: list[Tensor]) -> Any:
        inputs, targets = (each.to(work.device) for each in batch)
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return (loss.item(), accuracy_of(outputs, targets).item()) if work.typical else loss

    trainer = Engine(update)
    if work.typical:
        _ignite_handlers(work, trainer, model, optimizer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, work.mark)
    trainer.run(work.loader(), max_epochs=work.epochs)
    return model


def _ignite_handlers(work: Work, trainer: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    from ignite.engine import Events
    from ignite.handlers import Checkpoint, DiskSaver, ProgressBar, TensorboardLogger
    from ignite.metrics import RunningAverage

    RunningAverage(output_transform=lambda output: output[0]).attach(trainer, "loss")
    RunningAverage(output_transform=lambda output: output[1]).attach(trainer, "accuracy")
    ProgressBar().attach(trainer, metric_names=["loss", "accuracy"], event_name=Events.ITERATION_COMPLETED(every=EVERY))
    board = TensorboardLogger(log_dir=work.folder / "board")
    board.attach_output_handler(
        trainer, Events.ITERATION_COMPLETED(every=EVERY), tag="training", metric_names=["loss", "accuracy"]
    )
    saver = DiskSaver(str(work.folder / "checkpoints"), require_empty=False)
    everything = {"model": model, "optimizer": optimizer, "trainer": trainer}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(everything, saver, n_saved=2))


def lightning(work: Work) -> nn.Module:
    """The Trainer with nothing beside what the mode asks for."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.new_model()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            inputs, targets = batch
            outputs = self.model(inputs)
            loss = nn.functional.cross_entropy(outputs, targets)
            if work.typical:
                self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
                self.log("accuracy", accuracy_of(outputs, targets), on_step=True, on_epoch=True, prog_bar=True)
            return loss

        def on_train_epoch_end(self) -> None:
            work.mark()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    # rich, which batteries needs, would make Lightning take its rich bar; tqdm's is the one of a plain install
    callbacks = [TQDMProgressBar(), ModelCheckpoint(work.folder / "checkpoints")] if work.typical else []
    trainer = Trainer(
        accelerator=work.device,
        devices=1,
        max_epochs=work.epochs,
        logger=TensorBoardLogger(work.folder) if work.typical else False,
        callbacks=callbacks,
        enable_checkpointing=work.typical,
        enable_progress_bar=work.typical,
        enable_model_summary=False,
        log_every_n_steps=EVERY,
    )
    module = Module()
    trainer.fit(module, DataLoader(TensorDataset(*work.data()), batch_size=BATCH, shuffle=True))
    return module.model
