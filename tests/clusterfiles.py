"""What must hold of the files under clusters/, as functions that name the faults of one.

Ray's launcher has a schema of its own for files of ``ray up``; what it lets pass, and what would then cost money or
fail on the cluster only, is looked at here. A RayJob is held against the fields of KubeRay's ``ray.io/v1`` (those of
1.6) and of the pod templates in it that the files use.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

Config = dict[str, Any]

RESOURCES = {"CPU", "GPU", "memory", "object_store_memory"}
MARKETS = {"spot", "on-demand"}
PROVIDER = {
    "aws": {
        "type",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "security_group",
        "use_internal_ips",
    },
    "gcp": {"type", "region", "availability_zone", "project_id", "use_internal_ips"},
}

SECRETS = (
    r"AKIA[0-9A-Z]{16}|-----BEGIN|\bhf_\w{20}|\bghp_\w{20}|\b[0-9a-f]{32}\b"
    r"|(?i:token|password|secret|api_?key)\w*['\"]?\s*[:=]\s*['\"]?(?=[A-Za-z0-9+/]*\d)[A-Za-z0-9+/]{16,}"
)


def unsafe(text: str) -> list[str]:
    """What no file may have, whatever it is for."""
    faults = [
        f"opens a port to everybody: {found}" for found in re.findall(r"0\.0\.0\.0\S*|\[?::\]?:\d+", text)
    ]
    faults += ["takes a version that changes: latest"] * bool(re.search(r"\b(latest|nightly)\b", text))
    faults += [f"has a secret: {found.group()[:8]}..." for found in re.finditer(SECRETS, text)]
    faults += ["ends the Ray of others: ray stop --force"] * bool(
        re.search(r"ray stop.*(--force|-f\b)", text)
    )
    faults += ["makes a service public: LoadBalancer"] * bool(re.search(r":\s*(LoadBalancer|NodePort)", text))
    return faults


def images(tree: Any) -> Iterator[str]:
    """All container images named in a document."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("image", "head_image", "worker_image"):
                yield value
            else:
                yield from images(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from images(value)


def unpinned(tree: Any) -> list[str]:
    return [f"image without a version: {i}" for i in images(tree) if not re.search(r":\d+\.\d+\.\d+", str(i))]


def ray_up_faults(config: Config) -> list[str]:
    """Faults of a file for ``ray up``: Ray's own, then those that Ray does not look for."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:
        return [f"{type(error).__name__}: {str(error).splitlines()[0]}"]
    provider = config["provider"]
    faults = [f"provider: {key}?" for key in provider.keys() - PROVIDER[provider["type"]]]
    for name, node in config["available_node_types"].items():
        head = name == config["head_node_type"]
        faults += [f"{name}: {key} is no resource" for key in node["resources"].keys() - RESOURCES]
        if node.get("max_workers", config["max_workers"]) < node.get("min_workers", 0):
            faults.append(f"{name}: max_workers is below min_workers")
        if node.get("max_workers", 0) > config["max_workers"]:
            faults.append(f"{name}: max_workers is above that of the cluster")
        market = node.get("labels", {}).get("ray.io/market-type")
        if market != bought_on(provider["type"], node["node_config"]):
            faults.append(f"{name}: its label says {market}, and what is bought is not")
        if head and (
            node["resources"].get("GPU") or node["resources"].get("CPU") != 0 or market != "on-demand"
        ):
            faults.append(f"{name}: models do not belong on the head, nor the head on spot")
        if not head and (node.get("min_workers") or not node["resources"].get("GPU") or market != "spot"):
            faults.append(f"{name}: workers have GPUs, are on spot, and are none when nothing runs")
    start = " ".join(config["head_start_ray_commands"])
    if "--dashboard-host=127.0.0.1" not in start:
        faults.append("the dashboard is not kept to loopback")
    if "--env RAY_AUTH_MODE=token" not in config["docker"].get("run_options", []):
        faults.append("no token is asked for")
    return faults + unpinned(config)


def bought_on(provider: str, node_config: Config) -> str:
    """The market of a node's machine; Ray hands this part to the cloud unread."""
    if provider == "aws":
        spot = node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    else:
        spot = node_config.get("scheduling", {}).get("provisioningModel") == "SPOT"
    return "spot" if spot else "on-demand"


class OneOf(tuple[str, ...]):
    """A field with few values."""


TEXTS = {str: str}
QUANTITIES = {OneOf(("cpu", "memory", "nvidia.com/gpu", "ephemeral-storage", "storage")): str}
META = {"name": str, "namespace": str, "labels": TEXTS, "annotations": TEXTS}
MOUNT = {"name": str, "mountPath": str, "readOnly": bool, "subPath": str}
CONTAINER = {
    "name": str,
    "image": str,
    "imagePullPolicy": OneOf(("Always", "IfNotPresent", "Never")),
    "env": [{"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}],
    "resources": {"requests": QUANTITIES, "limits": QUANTITIES},
    "volumeMounts": [MOUNT],
}
VOLUME = {
    "name": str,
    "configMap": {"name": str},
    "persistentVolumeClaim": {"claimName": str},
    "emptyDir": {"medium": str, "sizeLimit": str},
}
TOLERATION = {
    "key": str,
    "operator": OneOf(("Equal", "Exists")),
    "value": str,
    "effect": OneOf(("NoSchedule", "PreferNoSchedule", "NoExecute")),
}
TEMPLATE = {
    "metadata": META,
    "spec": {
        "restartPolicy": OneOf(("Never", "Always", "OnFailure")),
        "securityContext": {"fsGroup": int, "runAsUser": int, "runAsNonRoot": bool},
        "serviceAccountName": str,
        "nodeSelector": TEXTS,
        "tolerations": [TOLERATION],
        "containers": [CONTAINER],
        "volumes": [VOLUME],
    },
}
CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": OneOf(("token", "disabled")), "secretName": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": OneOf(("v1", "v2")),
        "upscalingMode": OneOf(("Default", "Aggressive", "Conservative")),
        "idleTimeoutSeconds": int,
        "image": str,
        "resources": {"requests": QUANTITIES, "limits": QUANTITIES},
    },
    "headServiceAnnotations": TEXTS,
    "headGroupSpec": {
        "serviceType": OneOf(("ClusterIP", "NodePort", "LoadBalancer")),
        "enableIngress": bool,
        "rayStartParams": TEXTS,
        "labels": TEXTS,
        "resources": TEXTS,
        "template": TEMPLATE,
    },
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "numOfHosts": int,
            "idleTimeoutSeconds": int,
            "rayStartParams": TEXTS,
            "labels": TEXTS,
            "resources": TEXTS,
            "template": TEMPLATE,
        }
    ],
}
RAYJOB = {
    "apiVersion": OneOf(("ray.io/v1",)),
    "kind": OneOf(("RayJob",)),
    "metadata": META,
    "spec": {
        "entrypoint": str,
        "entrypointNumCpus": float,
        "submissionMode": OneOf(("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")),
        "jobId": str,
        "metadata": TEXTS,
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "suspend": bool,
        "rayClusterSpec": CLUSTER,
    },
}
REQUIRED = {
    "": ("apiVersion", "kind", "metadata", "spec"),
    "spec": ("entrypoint", "shutdownAfterJobFinishes", "activeDeadlineSeconds", "rayClusterSpec"),
    "spec.rayClusterSpec": ("rayVersion", "authOptions", "enableInTreeAutoscaling", "headGroupSpec"),
    "spec.rayClusterSpec.headGroupSpec": ("rayStartParams", "template"),
    "spec.rayClusterSpec.workerGroupSpecs": (
        "groupName",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    ),
}


def misfits(value: Any, schema: Any, path: str = "") -> Iterator[str]:
    """Unknown keys, missing keys and wrong types."""
    if isinstance(schema, OneOf):
        if value not in schema:
            yield f"{path}: {value!r} is none of {', '.join(schema)}"
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{path}: no list"
            return
        for item in value:
            yield from misfits(item, schema[0], path)
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{path}: no mapping"
            return
        yield from (f"{path}: {key} is missing" for key in REQUIRED.get(path, ()) if key not in value)
        (key_type,) = [k for k in schema if not isinstance(k, str)] or [None]
        for key, item in value.items():
            if key_type is not None:
                yield from misfits(key, key_type, path)
                yield from misfits(item, schema[key_type], f"{path}.{key}")
            elif key not in schema:
                yield f"{path}: {key}?"
            else:
                yield from misfits(item, schema[key], f"{path}.{key}".strip("."))
    elif type(value) is not schema and not (schema is float and type(value) is int):
        yield f"{path}: {value!r} is not {schema.__name__}"


def rayjob_faults(documents: list[Config]) -> list[str]:
    """Faults of the RayJob in a file, and of what it says about the other documents there."""
    (job,) = [d for d in documents if d.get("kind") == "RayJob"]
    if faults := list(misfits(job, RAYJOB)):
        return faults
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    claims = {d["metadata"]["name"] for d in documents if d.get("kind") == "PersistentVolumeClaim"}
    if re.search(r"[^\w\s./:=,-]", spec["entrypoint"]):
        faults.append("entrypoint: two shells read it, so it may have no special characters")
    if cluster["authOptions"].get("mode") != "token":
        faults.append("no token is asked for")
    if not (spec["shutdownAfterJobFinishes"] and cluster["enableInTreeAutoscaling"]):
        faults.append("the cluster neither shrinks nor ends by itself")
    if head["rayStartParams"].get("num-cpus") != "0":
        faults.append("models do not belong on the head")
    for group in workers:
        if not 0 == group["minReplicas"] < group["maxReplicas"]:
            faults.append(
                f"{group['groupName']}: workers are none when nothing runs, and some when something does"
            )
        pod = group["template"]["spec"]
        if group.get("labels", {}).get("ray.io/market-type") != "spot" or not pod.get("nodeSelector"):
            faults.append(f"{group['groupName']}: workers are on spot nodes, and labelled so")
        for container in pod["containers"]:
            asked = [container["resources"][side].get("nvidia.com/gpu") for side in ("requests", "limits")]
            if asked[0] is None or asked[0] != asked[1]:
                faults.append(f"{group['groupName']}: GPUs are asked for in requests and limits alike")
    for group in [head, *workers]:
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        faults += [f"volume {name}: not mounted, or not there" for name in mounted ^ volumes.keys()]
        used = {
            v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v
        }
        faults += [f"claim {name} is not in the file" for name in used - claims]
    return faults + unpinned(job)
