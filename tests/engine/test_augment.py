from __future__ import annotations

import pytest
import torch

from hptune.engine.augment import make_augment
from hptune.errors import ConfigError

torch.set_num_threads(1)


def images(samples=64, size=8):
    return torch.arange(samples * 2 * size * size, dtype=torch.float32).reshape(samples, 2, size, size) + 1


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_words_are_no_augmentation():
    assert make_augment([]) is None


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest():
    x = images()
    out = make_augment(["flip"])(x, generator())
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(out, x, strict=True)]
    untouched = [torch.equal(a, b) for a, b in zip(out, x, strict=True)]
    assert all(m != u for m, u in zip(mirrored, untouched, strict=True))
    assert 16 < sum(mirrored) < 48


def test_crop_cuts_each_image_out_of_its_reflection():
    x, padding = images(samples=20), 2
    out = make_augment([f"crop:{padding}"])(x, generator())
    padded = torch.nn.functional.pad(x, (padding,) * 4, mode="reflect")
    places = set()
    for image, whole in zip(out, padded, strict=True):
        windows = {(top, left): whole[:, top : top + 8, left : left + 8] for top in range(5) for left in range(5)}
        found = [place for place, window in windows.items() if torch.equal(window, image)]
        assert found
        places.add(found[0])
    assert len(places) > 5


def test_cutout_blanks_one_square_of_every_channel():
    x = images(samples=200)
    out = make_augment(["cutout:4"])(x, generator())
    blank = out == 0
    assert torch.equal(blank[:, 0], blank[:, 1])
    assert torch.equal(out[~blank], x[~blank])
    heights, widths = blank[:, 0].any(2).sum(1), blank[:, 0].any(1).sum(1)
    assert torch.equal(blank[:, 0].sum((1, 2)), heights * widths)
    assert (int(heights.min()), int(heights.max())) == (2, 4)


def test_draws_follow_the_generator_and_input_is_not_changed():
    x, augment = images(), make_augment(["flip", "crop:3", "cutout:2"])
    kept = x.clone()
    first, again, other = augment(x, generator()), augment(x, generator()), augment(x, generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("word", "x"),
    [
        ("flip", torch.zeros(4, 8)),
        ("flip", (torch.zeros(4, 1, 8, 8),)),
        ("flip", torch.zeros(4, 1, 8, 8, dtype=torch.int64)),
        ("crop:8", torch.zeros(4, 1, 8, 8)),
        ("cutout:8", torch.zeros(4, 1, 8, 8)),
    ],
)
def test_what_cannot_be_augmented_is_refused(word, x):
    with pytest.raises(ConfigError, match=r"data\.augment"):
        make_augment([word])(x, generator())
