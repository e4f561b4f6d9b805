"""The training container: SageMaker runs `IMAGE train`, and the exit status is the job's result.

When a spot instance is interrupted, the container gets SIGTERM, and 120 seconds later SIGKILL. A complete checkpoint is
written after each epoch, so the container just stops, and the next start continues from the last checkpoint.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from binwatch.errors import BinwatchError
from trainer.display import Display
from trainer.sagemaker import fitting
from trainer.sagemaker.layout import Cluster, Layout

MASTER_PORT = 29_500
"""The port on which the machines of a job connect. SageMaker opens all ports between them."""
SIGTERM_STATUS = 128 + signal.SIGTERM
"""Exit status after SIGTERM."""


def train(layout: Layout) -> int:
    """Run the training job that `layout` describes. Returns the exit status."""
    try:
        with _exit_on_sigterm():
            fitting.configuration(layout)  # report mistakes before any process is started
            cluster = layout.cluster()
            gpus = torch.cuda.device_count()
            if len(cluster.hosts) > 1 or gpus > 1:
                return _launch(launch_command(layout, cluster, gpus), layout)
            fitting.run(layout, Display())
    except BinwatchError as error:
        layout.fail(str(error))
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        layout.fail(f"{type(error).__name__}: {error}; the log has the whole traceback")
        traceback.print_exc()
        return 1
    return 0


def launch_command(layout: Layout, cluster: Cluster, gpus: int) -> list[str]:
    """Return the torchrun command for one machine, with a process for each GPU, or one process if it has no GPU."""
    # Name the interface to the other machines, because gloo and NCCL may otherwise choose the wrong one.
    interface = cluster.network_interface_name
    return [
        "env", f"NCCL_SOCKET_IFNAME={interface}", f"GLOO_SOCKET_IFNAME={interface}",
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes", str(len(cluster.hosts)), "--node_rank", str(cluster.rank), "--nproc_per_node", str(max(gpus, 1)),
        "--master_addr", cluster.master, "--master_port", str(MASTER_PORT),
        "-m", "trainer.sagemaker.fitting", str(layout.root),
    ]  # fmt: skip


def _launch(command: list[str], layout: Layout) -> int:
    with subprocess.Popen(command) as process:  # noqa: S603 (our own command line)
        try:
            # Not wait(): a SIGTERM that arrives just before it would be handled only after the training has ended.
            while (status := process.poll()) is None:
                time.sleep(1)
        except SystemExit:
            process.terminate()  # torchrun then stops its own processes
            process.wait()
            raise
    if status:
        layout.fail(f"training ended with status {status}; the log has the reason")
        return 1
    return 0


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Exit on SIGTERM. Without a handler, the kernel ignores the signal for a container's first process."""

    def stop(_: int, __: FrameType | None) -> None:
        print("stopped by SIGTERM; the last epoch's checkpoint is whole", file=sys.stderr, flush=True)
        sys.exit(SIGTERM_STATUS)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
