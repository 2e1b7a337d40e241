"""What the files of a package say: the words and numbers of one service for all templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from string import Template
from typing import NamedTuple

from vizsla.models.card import Card
from vizsla.packaging import quoting
from vizsla.packaging.spec import PackageSpec
from vizsla.serving.capture import SWEPT_SHARE
from vizsla.words import percent

GPU_COMPOSE = """\
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]"""
# Nodes say that they have it: node-generic-resources of their engine.
GPU_STACK = """\
        reservations:
          generic_resources:
            - discrete_resource_spec:
                kind: NVIDIA-GPU
                value: 1"""
GPU_KUBERNETES = """\
              nvidia.com/gpu: 1"""
# Where the wheels of requirements.txt have them.
CUDA_PATH = r"LD_LIBRARY_PATH=/opt/vizsla/lib/nvidia/cu13/lib:/opt/vizsla/lib/nvidia/cudnn/lib \ "[:-1]
CUDA_NOTE = """\
## GPU

It computes on one NVIDIA GPU, and does not begin without it. The libraries of CUDA 13 and cuDNN come with
`requirements.txt`, so the same image to begin with will do; the machine needs a driver for CUDA 13 and the NVIDIA
Container Toolkit (Kubernetes: the device plugin; Swarm: `node-generic-resources` of the engine). For systemd,
`LD_LIBRARY_PATH` has to name the folders `nvidia/cu13/lib` and `nvidia/cudnn/lib` of its virtual environment."""
CAPTURED_MADE = "RUN install -d -o 10001 -g 10001 /srv/captured"
CAPTURED_MOUNTED = {
    "compose": "volumes:\n      - captured:/srv/captured",
    "stack": "      - type: volume\n        source: captured\n        target: /srv/captured",
    "deployment": "            - name: captured\n              mountPath: /srv/captured",
}
# What a pod has kept goes with it: to keep it, let it be a claim of a persistent volume that all of them may write.
CAPTURED_VOLUME = {
    "compose": "volumes:\n  captured:",
    "stack": "volumes:\n  captured:",
    "deployment": """\
        # It goes with the pod. To keep it, put a persistentVolumeClaim in its place that all pods may write.
        - name: captured
          emptyDir:
            sizeLimit: {mb}Mi""",
}
CAPTURED_GROUP = "        fsGroup: 10001"
CAPTURED_STATE = "StateDirectory=vizsla-$name"
CAPTURED_LINKED = "sudo ln -s /var/lib/vizsla-$name /opt/$name/captured"
CAPTURED_NOTE = """\
## Pictures kept for labelling

It keeps {which}, for {max_days:g} days and up to {max_mb:g} MB.
They lie in `/srv/captured`: a volume for Docker, Compose and Swarm (where each node has its own), a folder that goes
with its pod for Kubernetes, and `/var/lib/vizsla-{name}` for systemd. Below it is `MODEL/pictures/CLASS/FILE`, by the
class that a picture was taken for: move what is in the wrong one, and train with it."""
PRIVATE_NETWORKS = ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                    "192.168.0.0/16"]  # fmt: skip
PRIVATE_NETWORKS_6 = ["::1/128", "fc00::/7", "fe80::/10"]


class Version(NamedTuple):
    """A version of a model that is packaged."""

    model: str
    card: Card
    num_graph_bytes: int


def words(spec: PackageSpec, versions: list[Version], tag: str) -> dict[str, str]:
    """What the placeholders of the templates stand for."""
    image = f"{spec.name}:{tag}"
    gpus = "--gpus 1 " if spec.cuda else ""
    return {
        "name": spec.name,
        "image": image,
        "tag": tag,
        "version": version("vizsla"),
        "yaml_name": quoting.yaml(spec.name),
        "yaml_tag": quoting.yaml(tag),
        "yaml_title": quoting.yaml(quoting.line(spec.service.name)),
        "yaml_models": quoting.yaml(_names(versions)),
        "yaml_cores": quoting.yaml(f"{round(1000 * spec.cores)}m"),
        "compose_image": quoting.compose(image),
        "compose_cores": quoting.compose(f"{spec.cores:g}"),
        "unit_title": quoting.unit(spec.service.name),
        "percent": str(round(100 * spec.cores)),
        "workers": str(spec.workers),
        "drain": f"{spec.drain:g}",
        "stop_s": str(spec.stop_s),
        "memory_mb": str(spec.memory_mb(sum(one.num_graph_bytes for one in versions))),
        "labels": _labels(spec, versions, tag),
        "command": json.dumps(_command(spec)),
        "options": " ".join(_command(spec)),
        "cuda": CUDA_PATH if spec.cuda else "",
        "cuda_note": CUDA_NOTE if spec.cuda else "",
        "gpus": gpus,
        "private_devices": "" if spec.cuda else "PrivateDevices=yes",
        "min_replicas": "1" if spec.cuda else "2",
        "max_replicas": "4" if spec.cuda else "10",
        "egress": json.dumps(_egress(spec)),
        "scaling": "It scales by the load of the processor, which says little of a GPU." if spec.cuda else "",
        "markdown_title": quoting.markdown(spec.service.name) or spec.name,
        "models": _models(versions),
        "quality": _quality(versions),
        "plural": "s" if len(versions) > 1 else "",
        "keys": _keys(spec),
        **_captured(spec),
        "header": ' -H "X-API-Key: $KEY"' if spec.service.keys else "",
    }


def _captured(spec: PackageSpec) -> dict[str, str]:
    """What the templates say of pictures that are kept for labelling; nothing, where none are."""
    rules = spec.service.capture
    if not rules.wanted:
        return dict.fromkeys(
            ("captured_made", "captured_group", "captured_state", "captured_note", "captured_linked", "volume"), ""
        )
    note = CAPTURED_NOTE.format(which=rules.which, max_days=rules.max_days, max_mb=rules.max_mb, name=spec.name)
    return {
        "captured_made": CAPTURED_MADE,
        "captured_group": CAPTURED_GROUP,
        "captured_state": Template(CAPTURED_STATE).substitute(name=spec.name),
        "captured_note": note,
        "captured_linked": Template(CAPTURED_LINKED).substitute(name=spec.name),
        "volume": f"--volume {spec.name}-captured:/srv/captured ",
    }


def mounted(spec: PackageSpec, kind: str) -> dict[str, str]:
    """How a kind of manifest (`compose`, `stack`, `deployment`) gives room to what is kept for labelling."""
    if not spec.service.capture.wanted:
        return {"captured_mounted": "", "captured_volume": ""}
    # Each process looks at the size of all from time to time only.
    mb = round((1.2 + SWEPT_SHARE * spec.workers) * spec.service.capture.max_mb) + 64
    return {
        "captured_mounted": CAPTURED_MOUNTED.get(kind, ""),
        "captured_volume": CAPTURED_VOLUME.get(kind, "").format(mb=mb),
    }


def _command(spec: PackageSpec) -> list[str]:
    public = ["--public"] if spec.public else []
    given = {"--host": "0.0.0.0", "--port": "8000", "--workers": str(spec.workers), "--drain": f"{spec.drain:g}"}
    return [word for pair in given.items() for word in pair] + public


def _names(versions: list[Version]) -> str:
    return ", ".join(f"{one.model} {one.card.id}" for one in versions)


def _labels(spec: PackageSpec, versions: list[Version], tag: str) -> str:
    """The labels of the image, by the names of the OCI where it has one."""
    licences = sorted({one.card.weights.licence for one in versions if one.card.weights is not None})
    labels = {
        "org.opencontainers.image.title": spec.service.name,
        "org.opencontainers.image.version": tag,
        "org.opencontainers.image.description": f"A service of Vizsla {version('vizsla')}: {_names(versions)}",
        "io.vizsla.models": _names(versions),
    }
    if licences:
        labels["io.vizsla.weights.licences"] = ", ".join(licences)
    return " \\\n      ".join(f"{name}={quoting.docker(value)}" for name, value in labels.items())


def _egress(spec: PackageSpec) -> list[dict[str, object]]:
    """Whom it may ask: nobody; with links, names and the public internet."""
    if not spec.service.links:
        return []
    blocks = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE_NETWORKS}},
        {"ipBlock": {"cidr": "::/0", "except": PRIVATE_NETWORKS_6}},
    ]
    return [
        {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
        {"to": blocks, "ports": [{"port": 80}, {"port": 443}]},
    ]


def _models(versions: list[Version]) -> str:
    rows = [
        f"| {one.model} | {one.card.id} | {quoting.markdown(one.card.name)} | {quoting.markdown(one.card.network)} | "
        f"{len(one.card.labels)} | {_licence(one.card)} |"
        for one in versions
    ]
    return "\n".join(
        [
            "| model | version | exported as | network | classes | pretrained weights |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _licence(card: Card) -> str:
    if card.weights is None:
        return "none"
    return f"{quoting.markdown(card.weights.source)}: {quoting.markdown(card.weights.licence)}"


def _quality(versions: list[Version]) -> str:
    """How good the models are, with the split, the number of pictures and the interval of each figure."""
    rows = list(_figures(versions))
    if not rows:
        return "How good it is was not measured before it was exported: `vizsla evaluate` does that."
    head = ["| model | version | split | pictures | accuracy (with its interval) |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _figures(versions: list[Version]) -> Iterator[str]:
    for one in versions:
        for figure in one.card.figures:
            accuracy = figure["accuracy"]
            split, number = quoting.markdown(str(figure["split"])), accuracy["num_pictures"]
            told = f"{percent(accuracy)}, {100 * accuracy['level']:g} % interval"
            yield f"| {one.model} | {one.card.id} | {split} | {number} | {told} |"


def _keys(spec: PackageSpec) -> str:
    number = len(spec.service.keys)
    if not number:
        return (
            "Everybody who can reach it: it was packaged with `--public`. For keys, name the SHA-256 of each (of its\n"
            "characters, without a line's end) among the `keys` of `service.json`, and build it again."
        )
    return (
        f"Who shows one of {number} key{'s' if number > 1 else ''}, "
        "as `Authorization: Bearer KEY` or `X-API-Key: KEY`.\n"
        "`service.json` holds the SHA-256 of each, by which nobody finds a random key: neither it nor the image is a\n"
        "secret, and none has to be mounted. Of another key, `printf %s KEY | sha256sum` gives what to put among its\n"
        "`keys`; build it again. Health and the page are for everybody."
    )
