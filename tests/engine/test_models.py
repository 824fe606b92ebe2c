"""Networks by name and by target: shapes, sizes, initialization, weights from a file, frozen parts, and every mistake."""

import pytest
import torch
from torch import nn

from hptune.config.schema import Model
from hptune.engine.models import build_model, frozen_modules, model_notes
from hptune.engine.nets import BUILT_IN
from hptune.engine.nets.deep import ResidualBlock, WideBlock
from hptune.errors import ConfigError, UserCodeError

torch.set_num_threads(1)

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)

USERS_CODE = """
import torch
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

def not_a_module():
    return "net"

def empty():
    return nn.ReLU()

def lazy():
    return nn.LazyLinear(3)

def broken():
    return nn.Linear(3)

instance = nn.Linear(64, 10)
"""


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "my code"
    folder.mkdir()
    (folder / "nets.py").write_text(USERS_CODE)
    return str(folder / "nets.py")


def build(name, shape=DIGITS, outputs=10, **section):
    torch.manual_seed(0)
    return build_model(Model(name=name, **section), sample_shape=shape, outputs=outputs)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, shape) for name in ("linear", "mlp", "small_cnn", "cifar3", "resnet20") for shape in (DIGITS, MNIST, CIFAR)),
        ("lenet", MNIST),
        ("lenet", CIFAR),
        ("lenet", (1, 16, 19)),
        ("small_cnn", (2, 4, 9)),
        ("cifar3", (3, 9, 13)),
        ("resnet20", (1, 5, 7)),
        ("resnet56", CIFAR),
        ("wide_resnet32", DIGITS),
        ("densenet40", DIGITS),
        ("densenet40", (1, 5, 7)),
        ("linear", (30,)),
        ("mlp", (4, 5)),
    ],
)
def test_built_ins_fit_the_data_and_learn(name, shape):
    model = build(name, shape, outputs=7)
    output = model(torch.randn(2, *shape))
    assert output.shape == (2, 7)
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("linear", MNIST, 7_850),
        ("mlp", MNIST, 101_770),
        ("lenet", MNIST, 431_080),  # Caffe's own
        ("cifar3", CIFAR, 89_578),  # Caffe's own
        ("resnet20", CIFAR, 269_722),  # 0.27 M in He's table 6
        ("resnet56", CIFAR, 853_018),  # 0.85 M there
        ("densenet40", CIFAR, 1_019_722),  # 1.0 M in the DenseNet paper's table 2
    ],
)
def test_published_sizes(name, shape, parameters):
    assert count(build(name, shape)) == parameters


def test_wide_resnet32_has_32_layers_of_the_reports_widths():
    layers = [
        m for m in build("wide_resnet32").modules() if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    ]
    assert len(layers) == 32
    assert [m.out_channels for m in layers[:-1]] == [16] * 11 + [64] * 10 + [256] * 10


@pytest.mark.parametrize(
    ("name", "args", "wider"),
    [
        ("mlp", {"hidden": [64, 64], "dropout": 0.5}, {"hidden": [64, 128], "dropout": 0.5}),
        ("small_cnn", {"width": 4}, {"width": 8}),
        ("cifar3", {"width": 4}, {"width": 8}),
        ("lenet", {"hidden": 20}, {"hidden": 30}),
        ("resnet20", {"width": 2}, {"width": 4}),
        ("wide_resnet32", {"widths": [2, 4, 6]}, {"widths": [2, 4, 8]}),
        ("densenet40", {"growth": 2}, {"growth": 3, "dropout": 0.0}),
    ],
)
def test_arguments_reach_the_network(name, args, wider):
    assert count(build(name, MNIST, args=args)) < count(build(name, MNIST, args=wider))


def test_dropout_reaches_the_network():
    rates = {m.p for m in build("densenet40", args={"dropout": 0.3, "growth": 1}).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.3}
    assert {m.p for m in build("mlp", args={"dropout": 0.25}).modules() if isinstance(m, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "cifar3", "resnet20"])
def test_the_seed_alone_decides_the_initialization(name):
    first, second = build(name), build(name)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    torch.manual_seed(1)
    third = build_model(Model(name=name), sample_shape=DIGITS, outputs=10)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True))


def test_he_initialization_where_it_is_promised():
    for name in ("cifar3", "resnet20", "wide_resnet32", "densenet40"):
        for module in build(name, CIFAR).modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
                fan_in = module.weight[0].numel()
                assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_shortcuts_when_the_body_says_nothing():
    x = torch.randn(2, 4, 6, 6)
    narrow, wide, shrinking = ResidualBlock(4, 4, stride=1), WideBlock(4, 4, shrink=False), ResidualBlock(4, 8, stride=2)
    for block in (narrow, wide, shrinking):
        nn.init.zeros_(block.body[-1].weight)
    assert torch.equal(narrow(x), x.relu())
    assert torch.equal(wide(x), x)
    assert torch.equal(shrinking(x)[:, :4], x[:, :, ::2, ::2].relu())
    assert not shrinking(x)[:, 4:].any()


def test_signals_neither_vanish_nor_explode_in_cifar3():
    output = build("cifar3", CIFAR)(torch.randn(64, *CIFAR))
    assert 0.02 < output.std().item() < 2


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "smal_cnn"}, r"^model\.name: unknown model 'smal_cnn': did you mean 'small_cnn'\?"),
        ({"name": "resnet19"}, "did you mean 'resnet1"),
        ({"name": "xyz"}, "unknown model 'xyz': use one of linear, mlp, .* a torchvision classification model, or a target"),
        (
            {"name": "small_cnn", "args": {"widht": 8}},
            r"^model\.args: small_cnn has no argument 'widht': did you mean 'width'\?; it takes width",
        ),
        ({"name": "linear", "args": {"bias": False}}, "linear has no argument 'bias'; it takes none"),
        ({"name": "small_cnn", "args": {"width": "8"}}, r"^model\.args\.width: small_cnn needs a whole number of at least 1, got '8'"),
        ({"name": "small_cnn", "args": {"width": 0}}, "a whole number of at least 1, got 0"),
        ({"name": "small_cnn", "args": {"width": True}}, "a whole number of at least 1, got True"),
        ({"name": "mlp", "args": {"hidden": 64}}, "a list of whole numbers of at least 1, got 64"),
        ({"name": "mlp", "args": {"hidden": [64, 2.5]}}, r"got \[64, 2.5\]"),
        ({"name": "mlp", "args": {"dropout": 1.0}}, "a number from 0 up to, but not including, 1, got 1.0"),
        ({"name": "wide_resnet32", "args": {"widths": [16, 64]}}, "give three widths, not 2"),
        ({"name": "resnet18", "args": {"widht": 3}}, r"^model\.args: torchvision's resnet18 .*widht"),
        ({"name": "resnet18", "args": {"weights": "DEFAULT"}}, "name a local file in model.pretrained"),
        ({"name": "resnet18", "args": {"num_classes": 5}}, "leave out num_classes: it follows from the data"),
    ],
)
def test_wrong_names_and_arguments(section, message):
    with pytest.raises(ConfigError, match=message):
        build_model(Model(**section), sample_shape=CIFAR, outputs=10)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("small_cnn", (30,), r"^model\.name: small_cnn takes images .* a sample has shape \(30,\): use linear or mlp"),
        ("small_cnn", (1, 3, 9), "at least 4x4 pixels, these have 3x9"),
        ("lenet", DIGITS, "at least 16x16 pixels, these have 8x8: use small_cnn"),
        ("cifar3", (1, 7, 8), "at least 8x8 pixels"),
        ("wide_resnet32", (1, 30, 32), "divisible by 4, these are 30x32"),
        ("densenet40", (1, 3, 8), "at least 4x4"),
        ("resnet18", (30,), "takes images of 1 or 3 channels, .* use linear or mlp"),
        ("resnet18", (2, 32, 32), "takes images of 1 or 3 channels"),
        ("alexnet", CIFAR, r"alexnet cannot take images of 32x32 pixels \(.*\): use a built-in"),
        ("linear", None, r"^model\.name: linear takes one tensor a sample, .*model\.target"),
    ],
)
def test_data_the_network_cannot_take(name, shape, message):
    with pytest.raises(ConfigError, match=message):
        build(name, shape)


@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_token_ids_need_a_model_of_ones_own(name):
    with pytest.raises(ConfigError, match="takes floating-point numbers, but these samples hold integers"):
        build_model(Model(name=name), sample_shape=(16,), outputs=2, token_ids=True)


def test_torchvision_by_name_with_repeated_grey_channel():
    model = build("resnet18", MNIST, outputs=7, args={"zero_init_residual": True})
    x = torch.randn(2, *MNIST)
    assert "conv1.weight" in dict(model.named_parameters())
    assert model.fc.out_features == 7
    assert not model.layer1[0].bn2.weight.any()
    assert model.training
    model.eval()
    torch.testing.assert_close(model(x), model(x.expand(-1, 3, -1, -1)))
    assert model_notes(Model(name="resnet18"), model, MNIST) == (
        "resnet18 takes 3 channels: the one channel of these images is repeated",
        "resnet18 as published shrinks 28x28 images to 1x1: its first layers are meant for 224x224; "
        "a built-in such as resnet20 is made for small images",
    )


def test_notes_leave_no_trace_and_large_images_need_none():
    model = build("squeezenet1_1", CIFAR)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert len(model_notes(Model(name="squeezenet1_1"), model, CIFAR)) == 1
    assert model_notes(Model(name="squeezenet1_1"), model, (3, 64, 64)) == ()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_googlenet_has_one_output():
    model = build("googlenet", (3, 64, 64), outputs=3)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)


def test_built_ins_have_no_notes():
    assert all(model_notes(Model(name=name), nn.Linear(1, 1), CIFAR) == () for name in BUILT_IN)


def test_a_target_is_called_with_its_arguments(code):
    model = build_model(Model(target=f"{code}:net", args={"width": 5}), sample_shape=None, outputs=10)
    assert model[1].out_features == 5
    assert model_notes(Model(target=f"{code}:net"), model, DIGITS) == ()


def test_an_instance_is_copied_for_every_trial(code):
    section = Model(target=f"{code}:instance")
    first = build_model(section, sample_shape=DIGITS, outputs=10)
    nn.init.zeros_(first.weight)
    assert build_model(section, sample_shape=DIGITS, outputs=10).weight.any()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("not_a_module", {}, "returned str, not a torch.nn.Module"),
        ("empty", {}, "has no parameters: nothing could be trained"),
        ("lazy", {}, "lazy layers of unknown size"),
        ("broken", {}, r"nets\.py:18: .*building the model"),
        ("net", {"widht": 3}, r"widht.*did you mean 'width'"),
        ("nte", {}, "did you mean 'net'"),
    ],
)
def test_mistakes_in_a_users_model(code, name, args, message):
    with pytest.raises(UserCodeError, match=message):
        build_model(Model(target=f"{code}:{name}", args=args), sample_shape=DIGITS, outputs=10)


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"model.{name}": value for name, value in state.items()},
    ],
    ids=["plain", "state_dict", "DataParallel", "Lightning"],
)
def test_pretrained_weights_load_and_a_new_last_layer_stays_random(tmp_path, wrap):
    source = build("small_cnn", outputs=3)
    path = str(tmp_path / "with spaces.pt")
    for value in source.state_dict().values():
        value.fill_(2)
    torch.save(wrap(source.state_dict()), path)
    model = build("small_cnn", outputs=5, pretrained=path)
    fresh = build("small_cnn", outputs=5)
    for name, value in model.state_dict().items():
        expected = fresh.state_dict()[name] if name.startswith("13.") else torch.full_like(value, 2)
        assert torch.equal(value, expected), name
    assert model_notes(Model(name="small_cnn", pretrained=path), model, DIGITS) == (
        f"{path}: 13.weight, 13.bias did not match and start from random values",
    )


def test_wholly_matching_weights_need_no_note(tmp_path):
    path = str(tmp_path / "w.pt")
    torch.save(build("small_cnn").state_dict(), path)
    assert model_notes(Model(name="small_cnn", pretrained=path), build("small_cnn", pretrained=path), DIGITS) == ()


def test_weights_of_another_network_are_refused(tmp_path):
    path = str(tmp_path / "w.pt")
    torch.save(build("mlp").state_dict(), path)
    with pytest.raises(ConfigError, match=r"^model\.pretrained: .*values for 0 of the model's 11 parameters.*0\.weight"):
        build("small_cnn", pretrained=path)


def test_files_that_hold_no_weights(tmp_path):
    path = tmp_path / "w.pt"
    with pytest.raises(ConfigError, match=r"^model\.pretrained: there is no file .*w\.pt"):
        build("small_cnn", pretrained=str(path))
    path.write_text("not a checkpoint")
    with pytest.raises(ConfigError, match="cannot be loaded as weights"):
        build("small_cnn", pretrained=str(path))
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(ConfigError, match=r"cannot be loaded as weights .*torch\.save\(model\.state_dict\(\), path\)"):
        build("small_cnn", pretrained=str(path))
    for content in ([1, 2], {"epoch": 3}, torch.ones(3)):
        torch.save(content, path)
        with pytest.raises(ConfigError, match="holds no state dict"):
            build("small_cnn", pretrained=str(path))


def test_freeze_by_patterns_and_hold_their_statistics():
    model = build("small_cnn", freeze=["0.*", "1.*", "4.weight"])
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.weight", "1.weight", "1.bias", "4.weight"]
    assert frozen_modules(model) == (model[1],)
    assert frozen_modules(build("small_cnn")) == ()


def test_statistics_without_parameters_are_held_inside_frozen_parts():
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Dropout())
    model = nn.ModuleDict({"backbone": backbone, "norm": nn.BatchNorm2d(2, affine=False), "head": nn.Linear(2, 2)})
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    assert frozen_modules(model) == (backbone[1],)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["1.wieght"], r"^model\.freeze: no parameter is named like '1\.wieght'; the nearest names are .*1\.weight"),
        (["zzzzzzzz*"], r"the nearest names are 0\.weight, 1\.weight, 1\.bias"),
        (["*"], "all parameters are frozen"),
    ],
)
def test_wrong_freeze_patterns(patterns, message):
    with pytest.raises(ConfigError, match=message):
        build("small_cnn", freeze=patterns)
