"""Augment sheet: real rows before and after, pictures and values, what changed marked."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

import batteries as bt
from batteries.cli.app import main
from batteries.errors import ExperimentError, UsageError
from batteries.prepare.augment import feature_dropout, mixup, token_drop
from batteries.prepare.new import new
from batteries.report.augment_sheet import Cell, Part, augment_context
from toy import Toy


def parts(experiment: bt.Experiment) -> dict[str, Part]:
    (sheet,) = augment_context(experiment)["sheets"]
    return {part.name: part for part in sheet.parts}


def picture(cell: Cell) -> np.ndarray[Any, Any]:
    """0 to 255, shape (height, width, 3)."""
    return (imread(BytesIO(b64decode(cell.uri.partition(",")[2])))[..., :3] * 255).round()


@dataclass(kw_only=True)
class Shown(Toy):
    """The toy with inputs of any kind; its classes have names."""

    kind: str = "values"
    classes = ("left", "middle", "right")

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> Any:
        n = len(rows)
        generator = torch.Generator().manual_seed(1)
        inputs: dict[str, Any] = {
            "values": torch.rand(n, 3, generator=generator),
            "many": torch.rand(n, 40, generator=generator),
            "grey": torch.rand(n, 5, 6, generator=generator),
            "bytes": torch.randint(0, 256, (n, 3, 5, 6), generator=generator).to(torch.uint8),
            "large": torch.rand(n, 7, 300, 200, generator=generator),
            "volumes": torch.rand(n, 1, 4, 4, 4, generator=generator),
            "text": {"ids": torch.randint(1, 9, (n, 5), generator=generator), "mask": torch.ones(n, 5).bool()},
        }
        return inputs[self.kind], torch.from_numpy(self.targets(rows).copy())

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        if self.kind == "text":
            ids, mask = token_drop(batch.inputs["ids"], random, p=0.3)
            return batch._replace(inputs={"ids": ids, "mask": mask})
        return batch._replace(inputs=feature_dropout(batch.inputs, random, p=0.3))


def test_values_are_marked_where_they_are_others_than_before() -> None:
    part = parts(Shown())["inputs"]
    assert part.about == "shape (8, 3), float32; changed in 4 of 4 epochs"
    assert len(part.rows) == 8
    marked = 0
    for name, (before, *after) in part.rows:
        assert re.fullmatch(r"id \d+", name)
        assert len(after) == 4
        assert not any(changed for _, changed in before.values)
        for cell in after:
            for (now, changed), (then, _) in zip(cell.values, before.values, strict=True):
                assert changed == (now != then)
                assert not changed or now == "0"
                marked += changed
    assert 15 < marked < 45  # 0.3 of 96


def test_a_long_row_shows_its_first_values() -> None:
    part = parts(Shown(kind="many"))["inputs"]
    assert ", the first 12;" in part.about
    assert {len(cell.values) for _, cells in part.rows for cell in cells} == {12}


@pytest.mark.parametrize("kind", ["grey", "bytes"])
def test_pictures_hold_the_pixels_before_and_after(kind: str) -> None:
    experiment = Shown(kind=kind)
    part = parts(experiment)["inputs"]
    inputs = experiment.dataset(experiment.table(), training=True)[0].double()
    span = inputs.max() - inputs.min()
    for name, (before, *after) in part.rows:
        pixels = inputs[int(name.removeprefix("id "))]
        wanted = np.broadcast_to(pixels.reshape(-1, 5, 6).permute(1, 2, 0).numpy(), (5, 6, 3))
        shown = picture(before)
        assert before.width == 6 * (128 // 6)
        if kind == "bytes":  # the range of one batch is that of all bytes, nearly
            np.testing.assert_allclose(shown, wanted, atol=3)
        else:
            np.testing.assert_allclose(shown / 255, wanted / float(span), atol=0.05)
        for cell in after:
            kept = picture(cell) == shown
            assert 0.4 < kept.mean() < 0.98
            assert picture(cell)[~kept].max() <= 1


def test_large_images_are_thinned_and_of_odd_channels_the_first_is_shown() -> None:
    part = parts(Shown(kind="large"))["inputs"]
    assert part.about == "shape (8, 7, 300, 200), float32, the first channel; changed in 4 of 4 epochs"
    assert picture(part.rows[0][1][0]).shape == (150, 100, 3)


def test_what_cannot_be_drawn_is_named() -> None:
    part = parts(Shown(kind="volumes"))["inputs"]
    assert (part.about, part.rows) == ("shape (8, 1, 4, 4, 4), float32, not drawn", [])


def test_texts_show_their_ids_and_masks() -> None:
    found = parts(Shown(kind="text"))
    assert list(found) == ["inputs['ids']", "inputs['mask']", "targets"]
    for (_, ids), (_, mask) in zip(found["inputs['ids']"].rows, found["inputs['mask']"].rows, strict=True):
        for cell, held in zip(ids, mask, strict=True):
            assert [text != "0" for text, _ in cell.values] == [text == "1" for text, _ in held.values]


def test_soft_targets_show_the_names_of_their_classes_and_shares() -> None:
    class Soft(Shown):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            inputs, targets = mixup(batch.inputs, batch.targets, random, alpha=1.0, classes=3)
            return batch._replace(inputs=inputs, targets=targets)

    texts = [[cell.values[0] for cell in cells] for _, cells in parts(Soft())["targets"].rows]
    assert {before for (before, _), *_ in texts} <= {"left", "middle", "right"}
    after = [text for _, *cells in texts for text, _ in cells]
    assert all(re.fullmatch(r"(left|middle|right) \d\.\d\d(, (left|middle|right) \d\.\d\d)?", text) for text in after)
    assert any("," in text for text in after)


def test_several_numbers_to_predict_are_all_shown() -> None:
    class Numbers(Toy):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            return batch._replace(targets=torch.tensor([[-1.5, 250.0]]).expand(batch.size, 2))

    found = parts(Numbers())["targets"]
    assert found.about == "as the loss gets them"
    assert [cell.values[0][0] for cell in found.rows[0][1][1:]] == ["-1.5, 250"] * 4


def test_targets_that_are_no_tensor_are_named() -> None:
    class Pairs(Shown):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            return batch._replace(targets=(batch.targets, batch.targets.flip(0)))

    assert (parts(Pairs())["targets"].about, parts(Pairs())["targets"].rows) == ("tuple, not drawn", [])


def test_an_augmentation_in_place_leaves_the_samples_before_as_they_are() -> None:
    class InPlace(Shown):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            batch.inputs.add_(1)
            return batch

    part = parts(InPlace())["inputs"]
    for _, (before, *after) in part.rows:
        assert all(float(text) < 1 for text, _ in before.values)
        assert all(1 <= float(text) < 2 for cell in after for text, _ in cell.values)


def test_stages_with_other_fields_have_sheets_of_their_own() -> None:
    class Staged(Shown):
        def stages(self) -> list[bt.Stage]:
            fields = [{}, {}, {"kind": "grey"}]
            return [bt.Stage(name, epochs=1, fields=own) for name, own in zip("abc", fields, strict=True)]

    sheets = augment_context(Staged())["sheets"]
    assert [sheet.title for sheet in sheets] == ["Stage a, b", "Stage c"]
    assert [sheet.parts[0].about[:11] for sheet in sheets] == ["shape (8, 3", "shape (8, 5"]


def test_an_experiment_without_augment_is_told_what_to_write() -> None:
    class Plain(Shown):
        augment = bt.Experiment.augment  # type: ignore[assignment]

    with pytest.raises(UsageError, match=r"^Plain has no augment, .* write augment\(self, batch, random\)"):
        augment_context(Plain())


def test_what_is_no_batch_is_refused() -> None:
    class Bare(Shown):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> Tensor:  # type: ignore[override]
            return batch.inputs

    with pytest.raises(ExperimentError, match=r"Bare\.augment must return a Batch, got Tensor; return batch\._replace"):
        augment_context(Bare())


def test_the_command_writes_one_page_that_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(new("digits", template="images", parent=tmp_path))
    assert main(["-C", folder, "study", "--augment"]) == 0
    assert capsys.readouterr().out == "before and after: runs/study/augment.html\n"
    page = (Path(folder) / "runs/study/augment.html").read_text()
    assert page.count("data:image/png;base64,") == 40
    assert "<h1>Augmentation: Digits</h1>" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert main(["-C", folder, "study", "--augment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": "runs/study/augment.html"}
    first = page
    assert (Path(folder) / "runs/study/augment.html").read_text() == first


def test_the_command_without_an_augment_ends_with_2(
    toy_folder: Path, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change("def augment(", "def unused(")
    assert main(["-C", str(toy_folder), "study", "--augment"]) == 2
    assert "Toy has no augment, so there is nothing to draw" in capsys.readouterr().err
