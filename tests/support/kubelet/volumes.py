"""A pod's volumes as folders, and the values that its environment takes from the API."""

import base64
import datetime
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kubelet.api import Api, Object

_RENEW_AFTER = 0.8  # of a token's life


class NotReadyYet(Exception):
    """Something that the pod refers to is not there (yet): the reason that its status shows."""


@dataclass(slots=True)
class Volumes:
    """The volumes of one pod below `folder`; claims live longer than it, below `claims`."""

    api: Api
    pod: Object
    address: str
    folder: Path
    claims: Path
    _tokens: dict[str, tuple[bytes, datetime.datetime]] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    def path(self, name: str) -> Path:
        """The folder (or, for hostPath, the file) of a volume. Raises NotReadyYet if unknown."""
        for volume in self.pod["spec"].get("volumes", []):
            if volume["name"] == name:
                if "hostPath" in volume:
                    return Path(volume["hostPath"]["path"])
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    return self.claims / self.namespace / str(claim)
                return self.folder / name
        raise NotReadyYet(f"the pod has no volume {name}")

    def writable(self, name: str) -> bool:
        """Whether a container may write there at all."""
        volume = next(v for v in self.pod["spec"]["volumes"] if v["name"] == name)
        return not volume.keys() & {"secret", "configMap", "projected", "downwardAPI"}

    def refresh(self) -> None:
        """Bring every volume up to date. Raises NotReadyYet naming what is missing."""
        for volume in self.pod["spec"].get("volumes", []):
            path = self.path(volume["name"])
            match volume:
                case {"emptyDir": _} | {"persistentVolumeClaim": _}:
                    path.mkdir(parents=True, exist_ok=True)
                case {"hostPath": _}:
                    pass
                case {"projected": source}:
                    files = {k: v for s in source["sources"] for k, v in self._files(s).items()}
                    _write_atomically(path, files, source.get("defaultMode", 0o644))
                case {"secret": source} | {"configMap": source} | {"downwardAPI": source}:
                    files = self._files(volume)
                    _write_atomically(path, files, source.get("defaultMode", 0o644))
                case _:
                    raise NotReadyYet(f"volume {volume['name']}: this kubelet has no such kind")

    def _files(self, source: Object) -> dict[str, bytes]:
        match source:
            case {"secret": which} | {"configMap": which}:
                kind = "secret" if "secret" in source else "configMap"
                return _items(self.entries(kind, which), which)
            case {"serviceAccountToken": token}:
                return {token["path"]: self._token(token)}
            case {"downwardAPI": {"items": items}}:
                return {i["path"]: self.field(i["fieldRef"]["fieldPath"]).encode() for i in items}
        raise NotReadyYet(f"this kubelet has no volume of kind {', '.join(source)}")

    def entries(self, kind: str, source: Object) -> dict[str, bytes]:
        """What a `secret` or `configMap` holds. Raises NotReadyYet without it, unless optional."""
        name = source.get("secretName") or source["name"]
        plural = f"{kind.lower()}s"
        found = self.api.find(f"/api/v1/namespaces/{self.namespace}/{plural}/{name}")
        if found is None:
            if source.get("optional", False):
                return {}
            raise NotReadyYet(f"{kind} {name!r} not found")
        data, binary = found.get("data") or {}, found.get("binaryData") or {}
        if kind == "secret":
            binary, data = data, {}
        plain = {key: value.encode() for key, value in data.items()}
        return plain | {key: base64.b64decode(value) for key, value in binary.items()}

    def field(self, path: str) -> str:
        """What the downward API says of the pod. Raises NotReadyYet for fields it does not know."""
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        entry = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        if entry:
            return str((metadata.get(entry[1]) or {}).get(entry[2], ""))
        match path.split("."):
            case ["metadata", "labels" | "annotations" as which]:
                pairs = (metadata.get(which) or {}).items()
                return "\n".join(f'{key}="{value}"' for key, value in pairs)
            case ["metadata", "name" | "namespace" | "uid" as which]:
                return str(metadata[which])
            case ["spec", "nodeName" | "serviceAccountName" as which]:
                return str(spec[which])
            case ["status", "podIP" | "podIPs" | "hostIP" | "hostIPs"]:
                return self.address
        raise NotReadyYet(f"this kubelet cannot resolve fieldRef {path}")

    def _token(self, source: Object) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        token, renew = self._tokens.get(source["path"], (b"", now))
        if now < renew:
            return token
        account = self.pod["spec"].get("serviceAccountName", "default")
        metadata = self.pod["metadata"]
        bound = {"kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        lifetime = source.get("expirationSeconds", 3600)
        spec = {"boundObjectRef": bound, "expirationSeconds": lifetime}
        if "audience" in source:
            spec["audiences"] = [source["audience"]]
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.api.call("POST", path, body)
        token = str(answer["status"]["token"]).encode()
        renew = now + datetime.timedelta(seconds=lifetime * _RENEW_AFTER)
        self._tokens[source["path"]] = token, renew
        return token


def _items(data: dict[str, bytes], source: Object) -> dict[str, bytes]:
    wanted = {item["key"]: item["path"] for item in source.get("items", ())}
    missing = wanted.keys() - data.keys()
    if missing and not source.get("optional", False):
        raise NotReadyYet(f"there is no key {min(missing)!r} in {source}")
    return {path: data[key] for key, path in wanted.items() if key in data} or data


def _write_atomically(folder: Path, files: Mapping[str, bytes], mode: int) -> None:
    """As the real kubelet: a new folder each time, and `..data` is swapped to it by a rename."""
    current = folder / "..data"
    old = current.resolve() if current.exists() else None
    if old is not None and _read(old) == files:
        return
    new = folder / f"..{secrets.token_hex(8)}"
    new.mkdir(parents=True)
    for name, content in files.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    link = folder / "..data_tmp"
    link.symlink_to(new.name)
    link.rename(current)
    wanted = {Path(name).parts[0] for name in files}
    there = {entry.name for entry in folder.iterdir()}
    for name in wanted - there:
        (folder / name).symlink_to(f"..data/{name}")
    for name in there - wanted:
        if not name.startswith(".."):
            (folder / name).unlink()
    if old is not None:
        shutil.rmtree(old)


def _read(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
