"""Scales the operator to nothing and waits until its last pod has ended.

It runs in a Job of the release that is being uninstalled, before `memtenant detach --all`: an
operator that is still there would put back the finalizers that the command takes off. Then it
deletes the CronJobs that the operator made. Standard library only.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LONGEST = 180.0  # seconds; a pod has its terminationGracePeriodSeconds


def call(method, path, body=None):
    """The API server's JSON answer; None where there is nothing (404)."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/merge-patch+json",
        },
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:  # noqa: S310 -- https, above
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def main():
    """0 when no pod of the operator is left; 1 with the names of those that are."""
    namespace = os.environ["MEMTENANT_HOME_NAMESPACE"]
    deployment = os.environ["OPERATOR_DEPLOYMENT"]
    selector = urllib.parse.quote(os.environ["OPERATOR_SELECTOR"])
    scale = f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}/scale"
    pods = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"

    call("PATCH", scale, {"spec": {"replicas": 0}})
    deadline = time.monotonic() + LONGEST
    while left := [pod["metadata"]["name"] for pod in call("GET", pods)["items"]]:
        if time.monotonic() > deadline:
            sys.stderr.write(f"these pods of the operator did not end: {', '.join(left)}\n")
            return 1
        time.sleep(1)
    # Report jobs would go on and fail: their account goes with the release.
    reports = urllib.parse.quote(
        "app.kubernetes.io/managed-by=memtenant,app.kubernetes.io/component=report"
    )
    call("DELETE", f"/apis/batch/v1/namespaces/{namespace}/cronjobs?labelSelector={reports}")
    sys.stdout.write("the operator has stopped\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
