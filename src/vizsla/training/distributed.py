"""The processes that share a step: who is one of how many, and sums over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from vizsla.training.ranks import RENDEZVOUS

# A process that waits so long for the others gives up. The first may be fetching weights and compiling meanwhile.
PATIENCE = timedelta(hours=1)


class Group(NamedTuple):
    """This process among those that train together; a process that trains alone is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them the same to the bit."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: so that all stop at the same step."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags)
        return bool(flags.item())

    def from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every process what the first one has in these tensors."""
        for tensor in tensors if self.world > 1 else ():
            dist.broadcast(tensor, 0)

    def parallel(self, module: nn.Module, device: torch.device, *, sync_batch_norm: bool, some_idle: bool) -> nn.Module:
        """`module` so that its gradients are the mean over all processes; buffers are those of rank 0.

        `some_idle` says that there are parameters without a part in the output, which have no gradient.
        """
        if self.world == 1:
            return module
        if sync_batch_norm:
            module = with_synced_norms(module)
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            module, device_ids=devices, gradient_as_bucket_view=True, find_unused_parameters=some_idle
        )


def with_synced_norms(module: nn.Module) -> nn.Module:
    """`module` with batch statistics over all processes. Its layers are changed in place, and once only.

    timm's conversion knows its own layers, which hold an activation; of converted ones it would lose that.
    """
    if any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
        return module
    return convert_sync_batchnorm(module)


def join(folder: Path, rank: int, world: int, device: torch.device) -> Group:
    """Meet the other processes of a run by a file in its folder: no port that another program could hold."""
    # The processes are on one machine. Without this, gloo asks a name server who this machine is.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL takes the current one for its own memory
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = dist.FileStore(str(folder / RENDEZVOUS), world)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    return Group(rank, world)


def leave() -> None:
    """Part from the others in good order, when all are done."""
    if dist.is_initialized():
        dist.destroy_process_group()
