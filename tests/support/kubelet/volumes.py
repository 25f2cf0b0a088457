"""A pod's volumes as folders, kept up to date with the API server."""

import base64
import secrets
import shutil
import time
from pathlib import Path

from tests.support.kubelet.api import Api, NotYet, Object

_WRITABLE = {"emptyDir", "persistentVolumeClaim"}


class Volumes:
    """The volumes of one pod below `folder`; claims live longer than it, below `claims`."""

    def __init__(self, api: Api, pod: Object, folder: Path, claims: Path) -> None:
        self._api, self._pod = api, pod
        self._namespace = pod["metadata"]["namespace"]
        self._volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        self._folders = {name: folder / name for name in self._volumes}
        for name, volume in self._volumes.items():
            if claim := volume.get("persistentVolumeClaim"):
                self._folders[name] = claims / self._namespace / claim["claimName"]
        self._written: dict[str, dict[str, bytes]] = {}
        self._tokens: dict[str, tuple[bytes, float]] = {}  # and when four fifths of it are over

    def mount(self, mount: Object) -> Object:
        """One of a container's volumeMounts, as the sandbox wants it."""
        writable = self._volumes[mount["name"]].keys() & _WRITABLE and not mount.get("readOnly")
        source = str(self._folders[mount["name"]])
        return {"source": source, "target": mount["mountPath"], "read_only": not writable}

    def refresh(self) -> None:
        """Bring every volume up to date. Raises NotYet, naming what is missing."""
        for name, volume in self._volumes.items():
            if volume.keys() & _WRITABLE:
                self._folders[name].mkdir(parents=True, exist_ok=True)
                continue
            what = next(each for each in volume.values() if isinstance(each, dict))
            sources = [self._files(source) for source in what.get("sources", [volume])]
            files = {path: content for part in sources for path, content in part.items()}
            if self._written.get(name) != files:
                _write(self._folders[name], files, what["defaultMode"])
                self._written[name] = files

    def field(self, source: Object) -> str:
        """What the downward API says of the pod, such as `metadata.name`. Raises NotYet."""
        found: Object | str | None = self._pod
        for key in source.get("fieldRef", {"fieldPath": ""})["fieldPath"].split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, str):
            raise NotYet(f"this kubelet cannot resolve {source}")
        return found

    def _files(self, source: Object) -> dict[str, bytes]:
        match source:
            case {"serviceAccountToken": token}:
                return {token["path"]: self._token(token)}
            case {"downwardAPI": {"items": items}}:
                return {i["path"]: self.field(i).encode() for i in items}
            case {"secret": which}:
                return self._entries(f"secrets/{which.get('secretName') or which['name']}", which)
            case {"configMap": which}:
                return self._entries(f"configmaps/{which['name']}", which)
        raise NotYet(f"this kubelet has no volumes of kind {', '.join(source)}")

    def _entries(self, path: str, source: Object) -> dict[str, bytes]:
        """What `source` wants of a Secret or ConfigMap."""
        data = self._api.call("GET", f"namespaces/{self._namespace}/{path}").get("data", {})
        decode = base64.b64decode if path.startswith("secrets") else str.encode
        items = source.get("items", [{"key": key, "path": key} for key in data])
        try:
            return {item["path"]: decode(data[item["key"]]) for item in items}
        except KeyError as missing:
            raise NotYet(f"{path} has no key {missing}") from missing

    def _token(self, source: Object) -> bytes:
        path, lifetime = source["path"], source["expirationSeconds"]
        token, renew_at = self._tokens.get(path, (b"", 0.0))
        if time.monotonic() >= renew_at:
            metadata, account = self._pod["metadata"], self._pod["spec"]["serviceAccountName"]
            bound = {"kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            audiences = [source["audience"]] if "audience" in source else []
            spec = {"boundObjectRef": bound, "expirationSeconds": lifetime, "audiences": audiences}
            url = f"namespaces/{self._namespace}/serviceaccounts/{account}/token"
            token = self._api.call("POST", url, {"spec": spec})["status"]["token"].encode()
            self._tokens[path] = token, time.monotonic() + lifetime * 0.8
        return token


def _write(folder: Path, files: dict[str, bytes], mode: int) -> None:
    """As the real kubelet: a new folder each time, and a rename turns the link `..data` to it."""
    new, link = folder / f"..{secrets.token_hex(8)}", folder / "..data_tmp"
    new.mkdir(parents=True)
    for name, content in files.items():
        (new / name).write_bytes(content)
        (new / name).chmod(mode)
    link.symlink_to(new.name)
    link.rename(folder / "..data")
    there = {entry.name for entry in folder.iterdir()} - {"..data", new.name}
    for name in files.keys() - there:
        (folder / name).symlink_to(f"..data/{name}")
    for entry in (folder / name for name in there - files.keys()):
        entry.unlink() if entry.is_symlink() else shutil.rmtree(entry)
