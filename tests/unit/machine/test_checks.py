from __future__ import annotations

from typing import Any

import pytest

from vizsla.machine.checks import Check, Facts, judge
from vizsla.machine.gpus import Driver, Found, Gpu, Link
from vizsla.machine.system import Disk, System

SYSTEM = System("Linux 6.1, x86_64", "3.11.2", "A processor", 8, 64 * 10**9, 50 * 10**9, 4096)
DISK = Disk("/data", "ext4", 500 * 10**9, 900.0, 2000.0)
CARD = Gpu(0, "GPU-a", "H100", (9, 0), 80 * 10**9, 10**9, 0.0, 40, 90.0, 700.0, 0, False)
OTHER = CARD._replace(number=1, uuid="GPU-b")
DRIVER = Driver("550.90", (12, 4))
CPU = {"products": {"fp32": 500.0, "bf16": 1500.0}, "errors": {"fp32": 1e-7, "bf16": 2e-3}, "copy_gb_s": 12.0}
GPU = {
    "name": "H100",
    "capability": [9, 0],
    "products": {"fp32": 50_000.0, "bf16": 700_000.0},
    "errors": {"fp32": 1e-7, "bf16": 2e-3},
    "copy_gb_s": 1500.0,
    "to_device_gb_s": 50.0,
    "to_host_gb_s": 50.0,
}


def _facts(*, cards: tuple[Gpu, ...] = (CARD, OTHER), seen: int = 2, **changed: Any) -> Facts:
    rates = {
        "torch": "2.9.0",
        "cuda": "12.4",
        "cudnn": 90100,
        "nccl": "2.21.5",
        "cpu_instructions": "AVX512",
        "threads": 8,
        "cpu": CPU,
        "cuda_error": "",
        "gpus": [GPU | {"number": i, "uuid": "ab"[i]} for i in range(seen)],
        "peers": [[0, 1], [1, 0]] if seen > 1 else [],
    }
    gpus = Found(DRIVER, cards) if cards else Found(None, failure="no library", reason="Not Found")
    facts = Facts(SYSTEM, DISK, gpus, rates, {"torch": "2.9.0"}, ["resnet18"])
    of_facts = {name: value for name, value in changed.items() if name in Facts._fields and name != "rates"}
    rates |= {name: value for name, value in changed.items() if name not in of_facts}
    return facts._replace(**of_facts)


def _named(found: list[Check], topic: str, name: str) -> Check:
    return next(check for check in found if (check.topic, check.name) == (topic, name))


def test_a_good_machine_is_good() -> None:
    found = judge(_facts())
    assert [check for check in found if check.verdict != "good" or check.remedy] == []
    assert _named(found, "gpus", "torch").found == "built for CUDA 12.4, cuDNN 9.1, NCCL 2.21.5; uses 2 of 2 GPUs"
    assert _named(found, "gpus", "peer to peer").found == "2 of 2 ways between two GPUs"
    assert "bf16 700.0 TFLOP/s" in _named(found, "cuda:1", "matrix products").found
    assert "79.0 of 80.0 GB are free" in _named(found, "cuda:1", "memory").found


def test_the_ways_between_cards_are_told() -> None:
    links = (Link(0, 1, "NVLink", ""), Link(0, 2, "one processor", ""), Link(1, 2, "one processor", ""))
    found = _named(judge(_facts(links=links)), "gpus", "peer to peer").found
    assert found == "2 of 2 ways between two GPUs; one processor: 2 pairs; NVLink: 1 pair"
    alone = judge(_facts(cards=(CARD,), seen=1, nccl=None))
    assert _named(alone, "gpus", "nccl").verdict == "good"
    assert not [check for check in alone if check.name == "peer to peer"]


def test_a_machine_without_a_gpu_has_a_note_and_no_problem() -> None:
    found = judge(_facts(cards=(), seen=0, cuda=None, nccl=None))
    assert [(check.name, check.verdict) for check in found if check.verdict != "good"] == [("driver", "note")]


BROKEN: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"system": SYSTEM._replace(free_memory_bytes=10**9)}, "machine", "memory", "problem", "kill a training"),
    ({"system": SYSTEM._replace(open_files=256)}, "machine", "open files", "note", "ulimit"),
    ({"disk": DISK._replace(filesystem="nfs4")}, "machine", "workspace", "problem", "local one"),
    ({"disk": DISK._replace(filesystem="fuse.sshfs")}, "machine", "workspace", "problem", "local one"),
    ({"disk": DISK._replace(filesystem="overlay")}, "machine", "workspace", "note", "gone with its container"),
    ({"disk": DISK._replace(error="Read-only file system")}, "machine", "workspace", "problem", "another --workspace"),
    ({"disk": DISK._replace(free_bytes=10**9)}, "machine", "free disk", "problem", "Free some space"),
    ({"disk": DISK._replace(read_mb_s=20.0)}, "machine", "disk rate", "note", "SSD"),
    ({"weights": []}, "libraries", "pretrained weights", "note", "vizsla[offline]"),
    ({"cpu": CPU | {"errors": {"fp32": float("nan")}}}, "cpu", "matrix products", "problem", "wrong"),
    ({"cpu": CPU | {"products": {"fp32": 500.0}}, "seen": 0}, "cpu", "matrix products", "note", "nothing by bf16"),
    ({"threads": 64}, "cpu", "matrix products", "note", "OMP_NUM_THREADS=8"),
    ({"seen": 0, "cuda": "13.2"}, "gpus", "torch", "problem", "built for CUDA 12"),
    ({"seen": 0, "cuda_error": "no device"}, "gpus", "torch", "problem", "cannot use the card"),
    ({"gpus": Found(DRIVER, (CARD, OTHER), silent=1)}, "gpus", "driver", "problem", "Xid"),
    ({"gpus": Found(DRIVER), "seen": 0}, "gpus", "driver", "note", "no card"),
    ({"gpus": Found(None, failure="version mismatch"), "seen": 0}, "gpus", "driver", "problem", "restart the machine"),
    ({"seen": 0, "cuda": None}, "gpus", "torch", "problem", "CPU only"),
    ({"seen": 1}, "gpus", "torch", "note", "CUDA_VISIBLE_DEVICES"),
    ({"nccl": None}, "gpus", "nccl", "problem", "NCCL"),
    ({"peers": [[0, 1]]}, "gpus", "peer to peer", "note", "gain less"),
    (
        {"peers": [[0, 1]], "links": (Link(0, 1, "one host bridge", "the chipset cannot do it"),)},
        "gpus",
        "peer to peer",
        "note",
        "It fails because the chipset cannot do it.",
    ),
    ({"cards": (CARD._replace(memory_errors=3),), "seen": 1}, "cuda:0", "memory", "problem", "3 errors"),
    ({"cards": (CARD._replace(used_bytes=60 * 10**9),), "seen": 1}, "cuda:0", "memory", "note", "Another program"),
    ({"cards": (CARD._replace(temperature_c=91),), "seen": 1}, "cuda:0", "state", "note", "hot"),
]


@pytest.mark.parametrize(("changed", "topic", "name", "verdict", "remedy"), BROKEN)
def test_what_is_wrong_has_a_verdict_and_a_remedy(
    changed: dict[str, Any], topic: str, name: str, verdict: str, remedy: str
) -> None:
    check = _named(judge(_facts(**changed)), topic, name)
    assert check.verdict == verdict
    assert remedy in check.remedy


@pytest.mark.parametrize(
    ("changed", "name", "verdict", "remedy"),
    [
        ({"error": "CUDA error: out of memory"}, "card", "problem", "Other programs"),
        ({"error": "CUDA error: no kernel image is available"}, "card", "problem", "not built for such a card"),
        ({"errors": {"fp32": 0.5}}, "matrix products", "problem", "wrong"),
        ({"products": {"fp32": 50_000.0, "bf16": 60_000.0}}, "matrix products", "note", "power limit"),
        ({"to_host_gb_s": 3.0}, "copies", "note", "PCIe"),
    ],
)
def test_what_is_wrong_with_a_card_has_one_too(changed: dict[str, Any], name: str, verdict: str, remedy: str) -> None:
    facts = _facts(cards=(CARD,), seen=1)
    facts.rates["gpus"][0] |= changed
    check = _named(judge(facts), "cuda:0", name)
    assert check.verdict == verdict
    assert remedy in check.remedy
