"""Alerts for stopped processes and an unavailable bucket. A pending alert counts as firing."""

from __future__ import annotations

from pathlib import Path

from testing.services.proxy import Proxy
from testing.services.rabbitmq import free_ports
from tests.faults.conftest import Took
from tests.faults.stack import Stack
from tests.monitor.prometheus import running_prometheus

RECONCILE_MINUTES = 0.1
"""Reconcile is late, and beat missed, after three times this."""


def test_each_missing_process_raises_an_alert(stack: Stack, s3_proxy: Proxy, tmp_path: Path, took: Took) -> None:
    worker_port, monitor_port = free_ports(2)
    stack.settings = stack.settings.model_copy(
        update={
            "worker_port": worker_port,
            "monitor_port": monitor_port,
            "reconcile_minutes": RECONCILE_MINUTES,
            "beat_file": tmp_path / "beat-schedule",
        }
    )
    folder = tmp_path / "prometheus"
    folder.mkdir()
    worker, addresses = stack.start(), (f"127.0.0.1:{monitor_port}", f"127.0.0.1:{worker_port}")
    monitor = stack.start(ready=False, command=("monitor", "serve"))
    beat = stack.start(ready=False, command=("worker", "beat"))
    with running_prometheus(folder, monitor=addresses[0], workers=[addresses[1]]) as prometheus:
        history: list[str] = []

        def wait_for(alert: str, *, raised: bool = True) -> None:
            stack.wait_until(lambda: bool(prometheus.raised(alert)) is raised)
            history.append(alert if raised else f"no {alert}")

        def last_reconcile() -> float:
            name = "binwatch_worker_periodic_task_timestamp_seconds"
            return prometheus.value(f'max({name}{{task="binwatch.reconcile", step="success"}})') or 0

        def worker_start() -> float:
            return prometheus.value('process_start_time_seconds{job="binwatch-worker"}') or 0

        stack.wait_until(lambda: last_reconcile() > 0)
        for alert in ("BinwatchMonitorDown", "BinwatchBeatDown", "BinwatchReconcileLate"):
            wait_for(alert, raised=False)
        s3_proxy.refuse()
        wait_for("BinwatchReconcileLate")
        s3_proxy.serve()
        wait_for("BinwatchReconcileLate", raised=False)
        stack.kill(beat)
        wait_for("BinwatchBeatDown")
        beat = stack.start(ready=False, command=("worker", "beat"))
        wait_for("BinwatchBeatDown", raised=False)
        stack.kill(monitor)
        wait_for("BinwatchMonitorDown")
        for _ in range(3):
            before = worker_start()
            stack.kill(worker)
            worker = stack.start()
            stack.wait_until(lambda before=before: worker_start() > before)
        wait_for("BinwatchWorkerRestarts")
        stack.kill(worker)
        wait_for("BinwatchWorkerDown")
        wait_for("BinwatchNoWorker")
    took(", ".join(history))
