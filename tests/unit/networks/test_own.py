"""A user's own network: only from allowed folders, unchanged since the run began, and wrong files say what is wrong."""

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from vizsla.errors import InvalidInput, NotFound, Unavailable, VizslaError
from vizsla.files import sha256
from vizsla.networks import catalogue, own, weights

GOOD = """
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, num_classes)

    def forward_features(self, x):
        return self.body(x)

    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.fc(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def get_classifier(self):
        return self.fc

def network(num_classes, in_channels):
    return Small(num_classes, in_channels)
"""
PLAIN = """
from torch import nn

def network(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, 7), nn.Dropout(), nn.Linear(7, num_classes))
"""


def write(folder: Path, text: str, name: str = "my.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(textwrap.dedent(text))
    return folder / name


def build(path: Path, num_classes: int = 5, in_channels: int = 3) -> nn.Module:
    return catalogue.build(str(path), num_classes=num_classes, in_channels=in_channels, size=(8, 8))


@pytest.mark.parametrize("in_channels", [1, 3])
def test_it_is_built_for_the_classes_and_channels(tmp_path: Path, in_channels: int) -> None:
    network = build(write(tmp_path, GOOD), in_channels=in_channels)
    assert network(torch.zeros(2, in_channels, 8, 8)).shape == (2, 5)
    assert network.training
    assert not any(tmp_path.glob("**/*.pyc")), "a cache could stand in for the text that was checked"


def test_trying_it_leaves_statistics_and_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = build(write(tmp_path, GOOD))
    after = torch.rand(1)
    assert torch.equal(network.get_buffer("body.1.running_mean"), torch.zeros(4))
    torch.manual_seed(3)
    own.load(tmp_path / "my.py")(num_classes=5, in_channels=3)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("x = 1", "defines no function `network`", "my.py"),
        ("def network(:\n", "The file of the network fails: SyntaxError", "my.py:1"),
        ("\nraise ValueError('no such luck')", "fails: ValueError: no such luck", "my.py:2"),
        ("import sys\nsys.exit(3)", "fails: SystemExit: 3", "my.py:2"),
        ("import another_file_of_mine", "ModuleNotFoundError", "my.py:1"),
        ("def network(classes): pass", "Its function network(num_classes=5, in_channels=3) fails: TypeError", "my.py"),
        ("def network(num_classes, in_channels):\n    return {}['x']", "fails: KeyError: 'x'", "my.py:2"),
        ("def network(num_classes, in_channels):\n    return 'lenet'", "returns no torch.nn.Module but str", "my.py"),
        (PLAIN.replace("7, num_classes", "7, 10"), "answers with 10 classes, and 5 were asked for", "my.py"),
        (PLAIN.replace("num_classes)", "num_classes), nn.Unflatten(1, (1, -1))"), "makes 2 x 1 x 5 of 2", "my.py"),
        (PLAIN.replace("* 64", "* 63"), "fails on 2 pictures of 8 x 8 px in eval mode: RuntimeError", "my.py"),
        (PLAIN + "    \nnn.Sequential.forward = lambda self, x: [x]", "returns no tensor but list", "my.py"),
        ("from torch import nn\ndef network(num_classes, in_channels):\n"
         "    return nn.Sequential(nn.AdaptiveAvgPool2d((1, num_classes)), nn.Flatten())",
         "15 classes", "my.py"),
    ],
)  # fmt: skip
def test_a_wrong_file_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str, where: str
) -> None:
    monkeypatch.setattr(nn.Sequential, "forward", nn.Sequential.forward)
    with pytest.raises(InvalidInput) as caught:
        build(write(tmp_path, text))
    assert what in caught.value.what
    assert caught.value.where.endswith(where)
    assert caught.value.remedy


def test_what_only_training_shows_is_found_before_it(tmp_path: Path) -> None:
    text = """
    from torch import nn

    class Two(nn.Linear):
        def forward(self, x):
            y = super().forward(x.mean((2, 3)))
            return (y, y) if self.training else y

    def network(num_classes, in_channels):
        return Two(in_channels, num_classes)
    """
    with pytest.raises(InvalidInput, match="In train mode the network returns no tensor but tuple"):
        build(write(tmp_path, text))


def test_a_network_without_parameters_is_refused(tmp_path: Path) -> None:
    text = """
    from torch import nn

    def network(num_classes, in_channels):
        return nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())
    """
    with pytest.raises(InvalidInput, match="no parameters that could be trained"):
        build(write(tmp_path, text), num_classes=3)


def test_its_last_layer_alone_needs_the_interface(tmp_path: Path) -> None:
    pictures = torch.rand(2, 3, 8, 8)
    assert catalogue.features(build(write(tmp_path, GOOD)), pictures).shape == (2, 4)
    with pytest.raises(InvalidInput, match="lacks forward_features and forward_head and get_classifier") as caught:
        catalogue.features(build(write(tmp_path, PLAIN)), pictures)
    assert "--tune full" in caught.value.remedy


def test_it_lies_in_an_allowed_folder(tmp_path: Path) -> None:
    here, there = write(tmp_path / "allowed", GOOD), write(tmp_path / "elsewhere", "raise SystemExit", "bad.py")
    folders = [tmp_path / "none", here.parent]
    assert own.locate(str(here), folders) == here
    assert own.locate("my.py", folders) == here
    (here.parent / "link.py").symlink_to(there)
    (here.parent / "inner").symlink_to(there.parent)
    outside = [str(there), str(here.parent / "link.py"), str(here.parent / "inner" / "bad.py"), "../elsewhere/bad.py"]
    for path in [*outside, "/none.py"]:
        with pytest.raises(InvalidInput, match="only from the folders that are allowed") as caught:
            own.locate(path, folders)
        assert str(here.parent) in caught.value.what
        assert "VIZSLA_NETWORK_PATHS" in caught.value.remedy
    (there.parent / "back.py").symlink_to(here)
    assert own.locate(str(there.parent / "back.py"), folders) == here, "what is run is what counts"


def test_an_allowed_folder_may_be_a_link_itself(tmp_path: Path) -> None:
    here = write(tmp_path / "real", GOOD)
    (tmp_path / "link").symlink_to(here.parent)
    assert own.locate(str(tmp_path / "link" / "my.py"), [tmp_path / "link"]) == here


@pytest.mark.parametrize("net", ["a\0b.py", "x" * 5000 + ".py"])
def test_what_is_no_path_is_refused(tmp_path: Path, net: str) -> None:
    with pytest.raises(VizslaError):
        own.locate(net, [tmp_path])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        own.locate("none.py", [tmp_path])
    with pytest.raises(NotFound):
        catalogue.check(str(tmp_path / "none.py"))


def test_a_relative_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="from the root on"):
        own.locate("my.py", [tmp_path, Path("networks")])


def test_a_run_keeps_its_copy(tmp_path: Path) -> None:
    path, run = write(tmp_path / "allowed", GOOD), tmp_path / "run"
    run.mkdir()
    copy = own.keep(path, run)
    assert copy.read_text() == path.read_text()
    own.require_unchanged(copy, sha256(path))
    copy.write_text(GOOD + "\n")
    with pytest.raises(InvalidInput, match="was changed since the run began"):
        own.require_unchanged(copy, sha256(path))
    copy.unlink()
    with pytest.raises(InvalidInput, match="is missing"):
        own.require_unchanged(copy, sha256(path))


@pytest.mark.parametrize(("content", "what"), [(b"\xff\xfe", "not Python"), (b" " * 1_000_001, "more than 1,000,000")])
def test_only_short_text_is_copied(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "my.py"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=what):
        own.keep(path, tmp_path)
    assert not (tmp_path / own.COPY).exists()


def test_two_files_do_not_meet(tmp_path: Path) -> None:
    first = build(write(tmp_path, GOOD, "a.py"))
    second = build(write(tmp_path, GOOD + "\nX = 1\n", "b.py"))
    assert type(first) is not type(second)
    assert type(first).__name__ == type(second).__name__


def test_its_weights_come_from_a_file(tmp_path: Path) -> None:
    path = str(write(tmp_path, GOOD))
    assert not weights.has_weights(path)
    with pytest.raises(Unavailable, match="--weights FILE"):
        weights.find(path, announce=print)
    trained = build(Path(path))
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    found = weights.find(path, str(tmp_path / "w.pth"), announce=print)
    other = build(Path(path), num_classes=2)
    weights.load(other, found, in_channels=3)
    assert torch.equal(other.get_parameter("body.0.weight"), trained.get_parameter("body.0.weight"))
    assert other.get_parameter("fc.weight").shape == (2, 4)


def test_it_is_described(tmp_path: Path) -> None:
    found = catalogue.describe(str(write(tmp_path, GOOD)))
    assert (found["name"], found["family"], found["weights"]) == ("my.py", "own", "none")
