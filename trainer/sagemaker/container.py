"""The training container: SageMaker runs `IMAGE train`, and the exit status is the job's result.

A spot instance that is interrupted gets SIGTERM, and 120 seconds later SIGKILL. A complete checkpoint is written after
each epoch, so the container just stops; the next start continues from the last checkpoint.
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

PORT = 29_500
"""The port by which the machines of a job connect. SageMaker lets them reach each other on all ports."""
STOPPED = 128 + signal.SIGTERM


def train(layout: Layout) -> int:
    """Run the job that `layout` describes; returns the exit status."""
    try:
        with _stoppable():
            fitting.configuration(layout)  # before any process is started
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
    """The command of torchrun on one machine, with a process for each GPU, or one process without a GPU."""
    # The interface that reaches the other machines must be named, or gloo and NCCL may take another one.
    interface = cluster.network_interface_name
    return [
        "env", f"NCCL_SOCKET_IFNAME={interface}", f"GLOO_SOCKET_IFNAME={interface}",
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes", str(len(cluster.hosts)), "--node_rank", str(cluster.rank), "--nproc_per_node", str(max(gpus, 1)),
        "--master_addr", cluster.master, "--master_port", str(PORT),
        "-m", "trainer.sagemaker.fitting", str(layout.root),
    ]  # fmt: skip


def _launch(command: list[str], layout: Layout) -> int:
    with subprocess.Popen(command) as process:  # noqa: S603 (our own command line)
        try:
            # Not wait(): a SIGTERM that comes just before it would be handled only after the end of the training.
            while (status := process.poll()) is None:
                time.sleep(1)
        except SystemExit:
            process.terminate()  # torchrun stops its processes in turn
            process.wait()
            raise
    if status:
        layout.fail(f"training ended with status {status}; the log has the reason")
        return 1
    return 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the process. The kernel ignores it for a container's first process unless there is a handler."""

    def stop(_: int, __: FrameType | None) -> None:
        print("stopped by SIGTERM; the last epoch's checkpoint is whole", file=sys.stderr, flush=True)
        sys.exit(STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
