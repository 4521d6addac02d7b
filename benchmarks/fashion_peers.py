"""Fashion-MNIST, by other libraries: the same job as their own pages show it, with logs and files off.

In:    the work of fashion_loops.
Out:   a function that gives the logits of images.
Next:  fashion.py measures them.
"""

from __future__ import annotations

from typing import Any

import torch
from fashion_loops import LR, Predict, Work, by_batches
from torch import Tensor, nn


def fabric(work: Work) -> Predict:
    """The hand-written loop with Fabric's lines in it."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator=work.device, devices=1)
    fabric.launch()
    bare = work.new_model()
    model, optimizer = fabric.setup(bare, torch.optim.AdamW(bare.parameters(), lr=LR))
    loader = fabric.setup_dataloaders(work.loader())
    for _ in range(work.epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
    return by_batches(bare, work.device)


def accelerate(work: Work) -> Predict:
    """The hand-written loop with accelerate's lines in it."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=work.device == "cpu")
    bare = work.new_model()
    model, optimizer, loader = accelerator.prepare(bare, torch.optim.AdamW(bare.parameters(), lr=LR), work.loader())
    for _ in range(work.epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    return by_batches(bare, work.device)


def ignite(work: Work) -> Predict:
    """The trainer that ignite makes of a model, an optimizer and a loss."""
    from ignite.engine import create_supervised_trainer

    model = work.new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    trainer = create_supervised_trainer(model, optimizer, nn.functional.cross_entropy, device=work.device)
    trainer.run(work.loader(), max_epochs=work.epochs)
    return by_batches(model, work.device)


def lightning(work: Work) -> Predict:
    """The Trainer, without logger, bar and checkpoints."""
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.new_model()

        def training_step(self, batch: Any, index: int) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    module = Module()
    trainer = Trainer(
        accelerator=work.device,
        devices=1,
        max_epochs=work.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, work.loader())
    return by_batches(module.model, work.device)
