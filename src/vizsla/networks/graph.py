"""The graph of a network, from watching it at work: which layer feeds which, what repeats, what runs side by side.

A pass on a black picture is recorded at the level of torch's functions, so nothing about the network's code matters.
Blocks that stand in a row and are equal become one with a count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vizsla.networks import catalogue, drawing, layers
from vizsla.networks.drawing import Block, Item, Parallel, Row, Series

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SMALLEST_BLOCK = 3
"""A block of fewer rows is drawn as its rows."""
SMALLEST_RUN = 3
"""So many blocks in a row that differ in nothing but their widths are folded too."""


class Entered(NamedTuple):
    """One call of a module."""

    name: str
    module: nn.Module
    call: int


@dataclass
class Node:
    """One function of torch, or one call of a module that has none below it."""

    within: tuple[Entered, ...]
    function: str
    inputs: set[int]
    parameters: dict[str, int]
    """of the layer, or those that a function takes itself: name and size, which is 0 where they were used before"""
    shape: tuple[int, ...]
    leaf: Entered | None


@dataclass
class Graph:
    """What was recorded, in order; node 0 is the picture."""

    nodes: list[Node] = field(default_factory=list)
    output: int = 0


def read(network: nn.Module, size: tuple[int, int], in_channels: int) -> Series:
    """The network as rows, blocks and branches, with shapes for one picture of `size` (height, width)."""
    graph = _record(network, size, in_channels)
    units = _units(graph, _block_names(network))
    picture = Row("Input", (in_channels, *size), 0, "other")
    return _fold(Series([picture, *_series(units, 0, len(units) - 1).items]))


def draw(network: nn.Module, title: str, size: tuple[int, int], in_channels: int) -> str:
    """The network as an SVG page; see `vizsla.networks.drawing`."""
    found = read(network, size, in_channels)
    costs = catalogue.summary(network, size, in_channels)
    idle = costs.num_parameters - found.num_parameters
    figures = [
        f"{costs.num_parameters:,} parameters",
        f"{idle:,} of them have no part in an answer and are not drawn" if idle > 0 else "",
        f"{costs.multiply_accumulates:,} multiply-accumulates for a picture of {size[1]} × {size[0]} px",
    ]
    return drawing.svg(title, " · ".join(filter(None, figures)), found)


class _Recorder(TorchFunctionMode):
    """Sees each function of torch that a network calls, and which tensors lead from one to the next."""

    def __init__(self, network: nn.Module, pictures: Tensor) -> None:
        super().__init__()
        self.graph = Graph([Node((), "input", set(), {}, tuple(pictures.shape[1:]), None)])
        self.entered: list[Entered] = []
        self._from = {id(pictures): 0}
        self._alive: list[Any] = [pictures]  # or the id of one that is gone could be another's
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        outputs = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        taken = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        if name == "__setitem__":
            outputs = taken[:1]
        if outputs:
            self._note(name, taken, outputs)
        return result

    def _note(self, name: str, taken: list[Tensor], outputs: list[Tensor]) -> None:
        inputs = {self._from[id(part)] for part in taken if id(part) in self._from}
        parameters = {self._names[id(part)]: part.numel() for part in taken if id(part) in self._names}
        last = self.entered[-1] if self.entered else None
        leaf = last if last is not None and layers.is_whole(last.module) else None
        shape = tuple(outputs[0].shape[1:])
        self._alive += outputs
        for part in outputs:
            self._from[id(part)] = len(self.graph.nodes)
        self.graph.nodes.append(Node(tuple(self.entered), name, inputs, parameters, shape, leaf))

    def enter(self, name: str, module: nn.Module) -> None:
        """A module begins."""
        self._calls += 1
        self.entered.append(Entered(name, module, self._calls))

    def leave(self) -> None:
        """The module that began last ends."""
        self.entered.pop()

    def came_from(self, tensor: object) -> int:
        """The node that made a tensor."""
        return self._from.get(id(tensor), 0)


def _record(network: nn.Module, size: tuple[int, int], in_channels: int) -> Graph:
    pictures = torch.zeros(1, in_channels, *size)
    recorder = _Recorder(network, pictures)
    hooks = []
    for name, module in network.named_modules():
        if name:
            hooks.append(module.register_forward_pre_hook(lambda m, _, name=name: recorder.enter(name, m)))
            hooks.append(module.register_forward_hook(lambda *_: recorder.leave()))
    try:
        with catalogue.evaluating(network), recorder:
            logits = network(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    recorder.graph.output = recorder.came_from(logits)
    return recorder.graph


def _block_names(network: nn.Module) -> set[str]:
    """The modules that are drawn as one box: the outermost that have layers, but no row of such modules, inside."""
    found: set[str] = set()

    def walk(prefix: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            if _is_composite(child) and not _holds_blocks(child):
                found.add(path)
            else:
                walk(path, child)

    walk("", network)
    return found


def _is_composite(module: nn.Module) -> bool:
    with_weights = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    return not isinstance(module, CONTAINERS) and any(module.children()) and len(with_weights) > 1


def _holds_blocks(module: nn.Module) -> bool:
    return any(
        _is_composite(child) for part in module.modules() if isinstance(part, CONTAINERS) for child in part.children()
    )


@dataclass
class _Unit:
    """A vertex of the graph at one level: a row, or a block with the graph inside it."""

    inputs: set[int]
    item: Item | None = None
    """None is a place where branches begin or end, without anything to draw"""


def _units(graph: Graph, blocks: set[str]) -> list[_Unit]:
    """The vertices from the picture to the logits, in order; each block is one."""
    nodes = _contracted(graph)
    groups: dict[object, list[int]] = {}
    for index in sorted(nodes):
        block = next((entered for entered in nodes[index].within if entered.name in blocks), None)
        groups.setdefault(("block", block.call) if block else index, []).append(index)
    units, place = [_Unit(set())], {0: 0}
    for key, members in groups.items():
        if key == 0:
            continue
        inputs = {place[i] for m in members for i in nodes[m].inputs if i not in members}
        for member in members:
            place[member] = len(units)
        if isinstance(key, tuple):
            block = next(entered for entered in nodes[members[0]].within if entered.name in blocks)
            units.append(_Unit(inputs, _block(block, [nodes[m] for m in members], members)))
        else:
            units.append(_Unit(inputs, _row(nodes[members[0]])))
    units.append(_Unit({place[graph.output]} if graph.output in place else {len(units) - 1}))
    return _between(units)


def _block(block: Entered, nodes: list[Node], indices: list[int]) -> Item:
    place = {index: number for number, index in enumerate(indices, 1)}
    units = [_Unit(set())]
    for node in nodes:
        units.append(_Unit({place.get(i, 0) for i in node.inputs}, _row(node)))
    used = {i for unit in units for i in unit.inputs}
    units.append(_Unit({i for i in range(1, len(units)) if i not in used}))
    units = _between(units)
    body = _series(units, 0, len(units) - 1)
    return Block(type(block.module).__name__, block.name, _fold(body), nodes[-1].shape, body.num_parameters)


def _contracted(graph: Graph) -> dict[int, Node]:
    """The nodes that are worth a row, with what feeds them through those that are not."""
    kept: dict[int, Node] = {0: graph.nodes[0]}
    sources: list[set[int]] = [{0}]
    bare: list[dict[str, int]] = [{}]  # parameters on their way to where they meet the picture
    of_call: dict[int, int] = {}
    counted: set[str] = set()  # what is used twice is there once

    def counts(parameters: dict[str, int]) -> dict[str, int]:
        found = {name: 0 if name in counted else number for name, number in parameters.items()}
        counted.update(parameters)
        return found

    for index, node in enumerate(graph.nodes[1:], 1):
        inputs = {source for i in node.inputs for source in sources[i]}
        taken = node.parameters | {name: count for i in node.inputs for name, count in bare[i].items()}
        bare.append({} if inputs else taken)
        if node.leaf is not None:
            first = of_call.setdefault(node.leaf.call, index) if inputs else index
            if first in kept:
                inputs.discard(first)
                before = kept[first]
                kept[first] = Node(node.within, "", before.inputs | inputs, before.parameters, node.shape, node.leaf)
            elif inputs and layers.is_shown(node.leaf.module):
                named = node.leaf.module.named_parameters(prefix=node.leaf.name)
                held = counts({name: parameter.numel() for name, parameter in named})
                kept[first] = Node(node.within, "", inputs, held, node.shape, node.leaf)
            sources.append({first} if first in kept else inputs)
        elif inputs and layers.is_drawn(node.function, len(inputs), bool(taken)):
            kept[index] = Node(node.within, node.function, inputs, counts(taken), node.shape, None)
            sources.append({index})
        else:
            sources.append(inputs)
    last = sources[graph.output]
    graph.output = max(last) if last else max(kept)
    return kept


def _row(node: Node) -> Row:
    if node.leaf is not None:
        module = node.leaf.module
        return Row(layers.label(module), node.shape, sum(node.parameters.values()), layers.kind(module))
    names = [name.rsplit(".", 1)[-1] for name in node.parameters]
    label, kind = layers.function(node.function, names)
    return Row(label, node.shape, sum(node.parameters.values()), kind)


def _between(units: list[_Unit]) -> list[_Unit]:
    """Only the units on a way from the first to the last."""
    wanted, open_ = {0}, [len(units) - 1]
    while open_:
        index = open_.pop()
        if index not in wanted:
            wanted.add(index)
            open_ += units[index].inputs
    order = sorted(wanted | {len(units) - 1})
    place = {index: number for number, index in enumerate(order)}
    return [_Unit({place[i] for i in units[index].inputs}, units[index].item) for index in order]


def _series(units: list[_Unit], start: int, end: int) -> Series:
    """What lies between two units, in order; a part that is not a sequence is branches side by side."""
    inside = range(start + 1, end)
    edges = {(i, index) for index in (*inside, end) for i in units[index].inputs}
    return _sequence(units, list(inside), edges, start, end)


def _sequence(units: list[_Unit], inside: list[int], edges: set[tuple[int, int]], start: int, end: int) -> Series:
    items: list[Item] = []
    begin, reached, waiting = start, _furthest(edges, start, end), []
    for index in [*inside, end]:
        if index < reached:
            waiting.append(index)
        else:  # no way leads past it
            items += _region(units, waiting, edges, begin, index)
            item = units[index].item
            if index != end and item is not None:
                items.append(item)
            begin, waiting = index, []
        reached = max(reached, _furthest(edges, index, end)) if index != end else reached
    return Series(items)


def _furthest(edges: set[tuple[int, int]], index: int, end: int) -> int:
    return max((min(to, end) for origin, to in edges if origin == index), default=index)


def _region(units: list[_Unit], inside: list[int], edges: set[tuple[int, int]], start: int, end: int) -> list[Item]:
    """The branches between two units that every way passes."""
    if not inside:
        return []
    parts = _components(inside, edges)
    skip = (start, end) in edges
    if len(parts) == 1 and not skip:  # knotted: no order but that of time
        return [_tidied(Series([item for i in inside if (item := units[i].item) is not None], knotted=True))]
    branches = []
    for part in parts:
        allowed = {*part, start, end}
        own = {(a, b) for a, b in edges if a in allowed and b in allowed and (a, b) != (start, end)}
        branches.append(_tidied(_sequence(units, part, own, start, end)))
    return [Parallel([branch for branch in branches if branch.items], skip or any(not b.items for b in branches))]


def _components(inside: list[int], edges: set[tuple[int, int]]) -> list[list[int]]:
    """Which of the units hang together, in their order."""
    label = {index: index for index in inside}

    def root(index: int) -> int:
        while label[index] != index:
            index = label[index]
        return index

    for a, b in edges:
        if a in label and b in label:
            label[root(b)] = root(a)
    parts: dict[int, list[int]] = {}
    for index in inside:
        parts.setdefault(root(index), []).append(index)
    return list(parts.values())


def _tidied(series: Series) -> Series:
    """Norms and activations become a word on the layer before them; small blocks become their rows."""
    items: list[Item] = []
    for item in series.items:
        if isinstance(item, Block) and _num_rows(item.body) < SMALLEST_BLOCK:
            parts: Sequence[Item] = item.body.items
        elif isinstance(item, Series) and not item.knotted:
            parts = item.items
        else:
            parts = [item]
        for part in parts:
            before = items[-1] if items else None
            if isinstance(part, Row) and isinstance(before, Row) and layers.joins(part.kind, before.kind):
                items[-1] = before.joined(part)
            else:
                items.append(part)
    return Series(items, series.knotted)


def _num_rows(item: Item) -> int:
    if isinstance(item, Series):
        return sum(_num_rows(part) for part in item.items)
    if isinstance(item, Parallel):
        return sum(_num_rows(part) for part in item.branches) + item.skip
    return _num_rows(item.body) if isinstance(item, Block) else 1


def _fold(series: Series) -> Series:
    """Equal neighbours become one with a count; so do blocks of one kind of which only the widths differ."""
    items: list[Item] = []
    for item in _tidied(series).items:
        folded = item
        if isinstance(item, Series):
            folded = _fold(item)
        elif isinstance(item, Parallel):
            folded = Parallel([_fold(branch) for branch in item.branches], item.skip)
        items.append(folded)
    items = _joined(items, 2, lambda item: item.signature(widths=True))
    return Series(_joined(items, SMALLEST_RUN, lambda item: item.signature(widths=False)), series.knotted)


def _joined(items: Iterable[Item], smallest: int, signature: Callable[[Row | Block], object]) -> list[Item]:
    found: list[Item] = []
    run: list[Row | Block] = []

    def close() -> None:
        worth = len(run) >= smallest and (isinstance(run[0], Block) or smallest == 2)
        found.extend([run[0].repeated(run)] if worth else run)
        run.clear()

    for item in items:
        if not isinstance(item, Row | Block) or (run and signature(run[-1]) != signature(item)):
            close()
        if isinstance(item, Row | Block):
            run.append(item)
        else:
            found.append(item)
    if run:
        close()
    return found
