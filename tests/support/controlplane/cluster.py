"""A Kubernetes API server, its controller manager and etcd as local processes.

    with running() as cluster:
        cluster.kubectl("get", "namespaces")

Ready in a few seconds. RBAC and Pod Security admission are on, ServiceAccount tokens are real,
namespaces and owned objects are collected. There is no scheduler, no node and no network: see
tests/support/kubelet for pods. Nothing here needs pytest.
"""

import base64
import contextlib
import http.client
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support import processes
from tests.support.certificates import Authority
from tests.support.controlplane import build
from tests.support.processes import StartFailed, Unavailable

_HOST = "127.0.0.1"
_SERVICES = "10.0.0.0/24"
_MASTERS = "system:masters"
_API_HOSTS = (
    "localhost",
    _HOST,
    "10.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
)


_PLURALS = {
    "Namespace": "namespaces",
    "Secret": "secrets",
    "MemoryStore": "memorystores",
    "MemoryTenant": "memorytenants",
    "RetentionPolicy": "retentionpolicies",
}
_OK, _BAD_REQUEST = 200, 400
_AS_KUBECTL = "fieldManager=kubectl&fieldValidation=Strict"
_NOT_YET, _TRIES = "There can be a delay between when CustomResourceDefinitions", 30


class KubectlFailed(Exception):
    """kubectl ended with another code than 0: the message is what it printed to stderr."""


@dataclass(slots=True)
class Cluster:
    """A running control plane and everything a test needs to use and to disturb it. The requests of
    the user ``audited`` are in `audit_log`."""

    folder: Path
    port: int
    authority: Authority
    _etcd_port: int
    audited: str = ""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _admin_tls: ssl.SSLContext | None = None

    @property
    def host(self) -> str:
        """The address that the API server listens on; its certificate covers it."""
        return _HOST

    @property
    def url(self) -> str:
        """The API server's URL."""
        return f"https://{_HOST}:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig that may do everything."""
        return self.folder / "admin.kubeconfig"

    @property
    def ca_file(self) -> Path:
        """The certificate that clients of the API server have to trust."""
        return self.folder / "ca.crt"

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None
    ) -> str:
        """What kubectl prints. Raises KubectlFailed with what it complains about."""
        answer = self.try_kubectl(*arguments, stdin=stdin, kubeconfig=kubeconfig)
        if answer.returncode != 0:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {answer.stderr.strip()}")
        return answer.stdout

    def try_kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl and return whatever came of it. It tries again where the API server asks for
        it, whose admission has not learnt of a CRD yet."""
        for _ in range(_TRIES):
            answer = self._tool(build.kubectl(), arguments, stdin, kubeconfig)
            if _NOT_YET not in answer.stderr:
                break
            time.sleep(1.0)
        return answer

    def helm(self, *arguments: str, kubeconfig: Path | None = None) -> str:
        """What Helm prints. Raises KubectlFailed with what it complains about."""
        answer = self._tool(build.helm(), arguments, None, kubeconfig)
        if answer.returncode != 0:
            raise KubectlFailed(f"helm {' '.join(arguments)}: {answer.stderr.strip()}")
        return answer.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`, parsed."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        assert isinstance(found, dict)
        return found

    def declare(self, *objects: dict[str, Any]) -> None:
        """`apply` of objects of the usual kinds, without kubectl's 150 ms of CPU for each call.
        What is refused is applied by kubectl, whose words tests read."""
        for each in objects:
            try:
                refused = self._api("PATCH", f"{_path(each)}?{_AS_KUBECTL}", each) >= _BAD_REQUEST
            except OSError:
                refused = True
            if refused:
                self.apply(each)

    def apply(self, *manifests: str | dict[str, Any], kubeconfig: Path | None = None) -> str:
        """`kubectl apply --server-side` of YAML texts or objects."""
        texts = [m if isinstance(m, str) else json.dumps(m) for m in manifests]
        arguments = ("apply", "--server-side", "-f", "-")
        return self.kubectl(*arguments, stdin="\n---\n".join(texts), kubeconfig=kubeconfig)

    def create_namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        """Create a namespace and wait for its default ServiceAccount, without which no pod is."""
        metadata = {"name": name, "labels": labels or {}}
        self.declare({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        processes.wait_until(
            lambda: self._api("GET", account) == _OK,
            what=f"ServiceAccount default in {name}",
        )

    def discard_namespace(self, name: str) -> None:
        """Delete a namespace; does not wait, and that it is gone or the server away is no error."""
        with contextlib.suppress(OSError):
            self._api("DELETE", f"/api/v1/namespaces/{name}")

    def admin_tls(self) -> ssl.SSLContext:
        """What a client of the API server needs to be its administrator."""
        if self._admin_tls is None:
            self._admin_tls = self._make_admin_tls()
        return self._admin_tls

    def _make_admin_tls(self) -> ssl.SSLContext:
        user = yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with tempfile.NamedTemporaryFile() as pem:
            for part in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[part]) + b"\n")
            pem.flush()
            context.load_cert_chain(pem.name)
        return context

    def kubeconfig_for_service_account(
        self, namespace: str, name: str, *, duration: str = "8h"
    ) -> Path:
        """A kubeconfig with a token of this ServiceAccount: exactly its rights, no more."""
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration", duration)
        path = self.folder / f"{namespace}.{name}.kubeconfig"
        self._write_kubeconfig(path, {"token": token.strip()}, namespace)
        return path

    def kubeconfig_for_user(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of a person, by client certificate."""
        certificate = self.authority.issue(user, organisations=groups)
        path = self.folder / f"user-{user}.kubeconfig"
        credentials = {
            "client-certificate-data": _base64(certificate.certificate),
            "client-key-data": _base64(certificate.key),
        }
        self._write_kubeconfig(path, credentials, "default")
        return path

    def start(self) -> None:
        """Start what does not run. Raises Unavailable or StartFailed."""
        self._start_etcd()
        self.start_api()
        self._start_controller_manager()

    def stop(self) -> None:
        """Stop everything, at once: nothing here is worth a graceful goodbye."""
        for name in list(self._processes):
            processes.kill(self._processes.pop(name))

    def start_api(self) -> None:
        """Start the API server (again), on the same port; returns when it is ready."""
        key = str(self.folder / "service-account.key")
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://{_HOST}:{self._etcd_port}",
            f"--secure-port={self.port}",
            f"--bind-address={_HOST}",
            f"--tls-cert-file={self.folder / 'api.crt'}",
            f"--tls-private-key-file={self.folder / 'api.key'}",
            f"--client-ca-file={self.ca_file}",
            f"--service-cluster-ip-range={_SERVICES}",
            "--allow-privileged=true",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--endpoint-reconciler-type=none",
            *self._audit_flags(),
        )
        self._wait("kube-apiserver", self._api_is_ready)

    @property
    def audit_log(self) -> Path:
        """A line of JSON for each request that was answered."""
        return self.folder / "audit.log"

    def _audit_flags(self) -> tuple[str, ...]:
        if not self.audited:
            return ()
        rules = [{"level": "Metadata", "users": [self.audited]}, {"level": "None"}]
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": rules,
        }
        file = self.folder / "audit-policy.yaml"
        file.write_text(yaml.safe_dump(policy))
        return (f"--audit-policy-file={file}", f"--audit-log-path={self.audit_log}")

    def stop_api(self) -> None:
        """Stop the API server alone: watches end as in an orderly shutdown."""
        processes.stop(self._processes.pop("kube-apiserver"), grace=2.0)

    def kill_api(self) -> None:
        """Crash the API server alone: its data stays in etcd."""
        processes.kill(self._processes.pop("kube-apiserver"))

    def freeze_api(self) -> None:
        """The API server accepts connections and answers nothing until `thaw_api`."""
        self._processes["kube-apiserver"].send_signal(signal.SIGSTOP)

    def thaw_api(self) -> None:
        """Undo `freeze_api`."""
        self._processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def log(self, name: str) -> Path:
        """The log of `etcd`, `kube-apiserver` or `kube-controller-manager`."""
        return self.folder / f"{name}.log"

    def _start_etcd(self) -> None:
        listen = f"http://{_HOST}:{self._etcd_port}"
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-peer-urls=http://{_HOST}:0",
            f"--listen-client-urls={listen}",
            f"--advertise-client-urls={listen}",
            "--unsafe-no-fsync=true",
            "--log-level=warn",
        )
        self._wait("etcd", self._etcd_is_ready)

    def _start_controller_manager(self) -> None:
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--service-account-private-key-file={self.folder / 'service-account.key'}",
            f"--root-ca-file={self.ca_file}",
            "--secure-port=0",
            "--controllers=*,-node-ipam-controller,-node-lifecycle-controller",
            # The defaults are for clusters of strangers: tests create and delete in bursts.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def _start(self, name: str, *flags: str) -> None:
        running = self._processes.get(name)
        if running is None or running.poll() is not None:
            self._processes[name] = processes.spawn(
                [str(build.program(name)), *flags],
                log=self.log(name),
                cwd=self.folder,
                new_session=True,
            )

    def _wait(self, name: str, ready: Any) -> None:
        processes.wait_until(
            ready, what=name, child=self._processes[name], log=self.log(name), timeout=120
        )

    def _etcd_is_ready(self) -> bool:
        return _healthy(http.client.HTTPConnection(_HOST, self._etcd_port, timeout=30), "/health")

    def _api_is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(_HOST, self.port, timeout=30, context=context)
        return _healthy(connection, "/readyz")

    def _api(self, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        """The status of one request of the administrator's."""
        connection = http.client.HTTPSConnection(
            _HOST, self.port, timeout=60, context=self.admin_tls()
        )
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/apply-patch+yaml"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection.getresponse().status

    def _write_kubeconfig(self, path: Path, user: dict[str, str], namespace: str) -> None:
        authority = _base64(self.authority.certificate)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "local",
                    "cluster": {"server": self.url, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": "user", "user": user}],
            "contexts": [
                {
                    "name": "local",
                    "context": {"cluster": "local", "user": "user", "namespace": namespace},
                }
            ],
            "current-context": "local",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))

    def _write_credentials(self) -> None:
        self.ca_file.write_bytes(self.authority.certificate)
        self.authority.issue("kube-apiserver", hosts=_API_HOSTS).write(self.folder, "api")
        signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key = self.folder / "service-account.key"
        key.touch(mode=0o600)
        key.write_bytes(
            signing.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        admin = self.kubeconfig_for_user("admin", [_MASTERS])
        admin.rename(self.kubeconfig)

    def _tool(
        self,
        tool: Path,
        arguments: Sequence[str],
        stdin: str | None,
        kubeconfig: Path | None,
    ) -> "subprocess.CompletedProcess[str]":
        # An empty HOME keeps caches and settings of whoever runs the tests out of them.
        env = {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "HOME": str(self.folder),
            "PATH": "/usr/bin:/bin",
        }
        return subprocess.run(
            [tool, *arguments], input=stdin, capture_output=True, text=True, check=False, env=env
        )


def _path(declared: dict[str, Any]) -> str:
    version, metadata = declared["apiVersion"], declared["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if namespace := metadata.get("namespace"):
        root += f"/namespaces/{namespace}"
    return f"{root}/{_PLURALS[declared['kind']]}/{metadata['name']}"


def start(*, audited: str = "") -> Cluster:
    """Start a control plane; `discard` it when done. Raises Unavailable or StartFailed."""
    for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
        build.program(name)
    build.kubectl()
    cluster = Cluster(
        folder=Path(tempfile.mkdtemp(prefix="memtenant-cluster-")),
        port=processes.free_port(),
        authority=Authority("kubernetes"),
        _etcd_port=processes.free_port(),
        audited=audited,
    )
    cluster._write_credentials()
    try:
        cluster.start()
    except (StartFailed, Unavailable):
        discard(cluster)
        raise
    return cluster


def discard(cluster: Cluster) -> None:
    """Stop everything and remove the folder."""
    cluster.stop()
    shutil.rmtree(cluster.folder, ignore_errors=True)


@contextlib.contextmanager
def running(*, audited: str = "") -> Iterator[Cluster]:
    """`start`, then `discard` at the end of the block."""
    cluster = start(audited=audited)
    try:
        yield cluster
    finally:
        discard(cluster)


def _healthy(connection: http.client.HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
