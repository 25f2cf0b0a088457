"""``memtenant controller``: the operator itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memtenant.cli.cluster import needs_operator

__all__ = ["controller"]


def controller(
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file of settings.", show_default=False),
    ] = None,
    home_namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Else the pod's.", show_default=False)
    ] = None,
    installation_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Else the home namespace's UID.", show_default=False),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Else the pod's ServiceAccount.", show_default=False),
    ] = None,
    secret_access: Annotated[
        str | None, typer.Option(metavar="Namespaced|Cluster", show_default=False)
    ] = None,
    tenant_namespaces: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Where Secrets may be touched.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Reconciles at once.", show_default=False)
    ] = None,
    resync_interval: Annotated[
        str | None, typer.Option(metavar="10m", help="Of every object.", show_default=False)
    ] = None,
    repair_interval: Annotated[
        str | None, typer.Option(metavar="5s", help="Of each store's users.", show_default=False)
    ] = None,
    measure_interval: Annotated[
        str | None, typer.Option(metavar="60s", help="Of each store's memory.", show_default=False)
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="/healthz, /readyz, /metrics.", show_default=False),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="json|text|auto", show_default=False)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="DEBUG|INFO|WARNING|ERROR", show_default=False)
    ] = None,
) -> None:
    """Run the operator: one replica, until it is told to stop.

    A setting is an option here, a variable such as MEMTENANT_MEASURE_INTERVAL, or a key of the
    --settings file; in this order. The rarer ones are variables and keys only
    (docs: memtenant.controller.settings).

    Example: `memtenant controller --kubeconfig ~/.kube/config --log-format text`
    """
    try:
        from memtenant.controller.assembly import assemble
        from memtenant.controller.main import run
        from memtenant.controller.settings import load
    except ImportError as error:
        raise needs_operator(error) from None
    loaded = load(
        {
            "home_namespace": home_namespace,
            "installation_id": installation_id,
            "kubeconfig": kubeconfig,
            "secret_access": secret_access,
            "tenant_namespaces": tenant_namespaces,
            "workers": workers,
            "resync_interval": resync_interval,
            "repair_interval": repair_interval,
            "measure_interval": measure_interval,
            "health_port": health_port,
            "log_format": log_format,
            "log_level": log_level,
        },
        file=settings,
    )
    raise typer.Exit(run(loaded, assemble))
