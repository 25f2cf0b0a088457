"""A kubelet that runs pods as local processes, for tests and `make demo-cluster`.

It registers a node, binds every pod to it and runs the pod's container: command, args, env (values,
downward API), volumes (Secret, ConfigMap, projected token, downward API, emptyDir, a folder for a
claim; kept up to date) in a mount namespace of its own, `readOnlyRootFilesystem`, httpGet probes,
restarts, exit codes, phases, and deletion by SIGTERM, grace period, SIGKILL.

What it leaves out, so that nobody is misled by a passing test:
- Images: a name stands for a program of this machine (`Image`). A pod sees the machine's own files
  as the user who runs the kubelet, and may write where that user may.
- Network: all pods share the machine's. Each has a loopback address, in `POD_ADDRESS`; the API
  refuses it as podIP, so EndpointSlices stay empty. A server on 0.0.0.0 takes its port from all
  pods. Service names (not those of single pods) resolve by /etc/hosts, in pods only, to the ready
  pods: a Service's port must equal its targetPort. NetworkPolicies do nothing.
- Refused, with a message in the pod's status: several or init containers, other volumes, other
  sources of env. What is missing is waited for, `optional` or not. Claims stay Pending.
- Ignored: the rest of securityContext (admission still judges it), resources, `$(VAR)`, `envFrom`,
  `subPath`, hooks, Service variables, `minReadySeconds`, `kubectl logs|exec`, heartbeats, eviction.
- Probes run every second, pods in turn; a startup probe is only time for liveness, which sends
  SIGTERM, no SIGKILL; probes of other kinds fail. A restart always comes after a second.
- A kubelet that is killed takes its containers along, though not what those started.
"""

from tests.support.kubelet.node import Image, Kubelet, running

__all__ = ["Image", "Kubelet", "running"]
