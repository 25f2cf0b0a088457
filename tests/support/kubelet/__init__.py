"""A kubelet that runs pods as local processes, for tests and `make demo-cluster`.

What it does as the real one: registers a node; takes pods (it is its own scheduler); runs init
containers and containers with their command, args, env (values, `$(VAR)`, Secrets, ConfigMaps,
downward API) and volumes (Secret, ConfigMap, projected with ServiceAccount tokens, downward API,
emptyDir, hostPath, and a folder for a PersistentVolumeClaim) at the paths that the pod says, in a
mount namespace of the container's own (unprivileged: with a user namespace); renews tokens and
swaps changed Secrets and ConfigMaps atomically within a few seconds; `readOnlyRootFilesystem`;
readiness and liveness probes (httpGet, tcpSocket, exec); restarts by policy with a backoff; exit
codes, phases and conditions, so that Jobs, Deployments and StatefulSets work; deletion with
SIGTERM, grace period, SIGKILL; a log file a container (`Kubelet.logs`).

What it leaves out, so that nobody is misled by a passing test:
- **Images.** An image name stands for programs of this machine (`Image`). A pod sees the
  machine's own file system, as the user who runs the kubelet, and may write where that user may.
- **The rest of securityContext, resources, cgroups.** runAsUser, capabilities, seccomp, limits and
  requests are not applied (Pod Security admission still judges them).
- **Network.** All pods share the machine's. Each has a loopback address of its own (127.0.0.0/8),
  in `POD_ADDRESS` and wherever the downward API asks for `status.podIP`; the API refuses a
  loopback podIP, so the pod's status has none and EndpointSlices stay empty. A server that binds
  0.0.0.0 takes its port from all pods. Service names resolve, by /etc/hosts, to the addresses of
  the ready pods that this kubelet runs; a Service's port must therefore equal its targetPort.
  NetworkPolicies do nothing. Processes outside pods do not resolve Service names.
- A startup probe holds the others back, but its failures kill nothing.
- preStop and postStart hooks, sidecar (restartable init) containers, ephemeral containers, gRPC
  probes, resourceFieldRef, Service variables such as FOO_SERVICE_HOST, volumes by CSI,
  `kubectl logs|exec|attach|port-forward`, image pull policies, eviction, node leases and
  heartbeats. A claim gets a folder and no PersistentVolume: it stays Pending. A kubelet that is
  killed takes its pods' processes along, though not processes that those started themselves.
- Waiting is shorter: probes of a container that is not ready run every second at the latest, and
  the restart backoff is 0.5 s to 10 s instead of 10 s to 5 min.
"""

from tests.support.kubelet.images import Image
from tests.support.kubelet.node import Kubelet, running

__all__ = ["Image", "Kubelet", "running"]
