"""The shapes of the served kinds, in the type language of `schema.py`.

Source: Kubernetes API reference 1.32. What is listed as `unserved` is refused, not ignored.
"""

from __future__ import annotations

from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.schema import (
    Amount,
    Boolean,
    Integer,
    IntegerOrPercent,
    ListOf,
    MapOf,
    Moment,
    Only,
    Opaque,
    Struct,
    Text,
    Type,
)

_COUNT = Integer(0)
_TEXTS = MapOf(Text())

_OWNER = Struct(
    {
        "apiVersion": Text(253),
        "kind": Text(63),
        "name": Text(253),
        "uid": Text(63),
        "controller": Boolean(),
        "blockOwnerDeletion": Boolean(),
    },
    required=("apiVersion", "kind", "name", "uid"),
)

METADATA = Struct(
    {
        "name": Text(253),
        "generateName": Text(253),
        "namespace": Text(63),
        "uid": Text(63),
        "resourceVersion": Text(20),
        "generation": Integer(0, 2**63 - 1),
        "creationTimestamp": Moment(),
        "deletionTimestamp": Moment(),
        "deletionGracePeriodSeconds": Integer(0, 2**63 - 1),
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "finalizers": ListOf(Text(253), limit=50),
        "ownerReferences": ListOf(_OWNER, "uid", limit=100),
        "managedFields": ListOf(Opaque()),
        "selfLink": Text(),
    }
)

_ENV = Struct(
    {
        "name": Text(1024),
        "value": Text(1 << 17),
        "valueFrom": Struct(
            {"fieldRef": Struct({"apiVersion": Only("v1"), "fieldPath": Text(512)}, required=("fieldPath",))},
            required=("fieldRef",),
            unserved=("configMapKeyRef", "secretKeyRef", "resourceFieldRef"),
        ),
    },
    required=("name",),
)

_PORT = Struct(
    {
        "name": Text(15),
        "containerPort": Integer(1, 65535),
        "protocol": Text(choices=("TCP", "UDP", "SCTP")),
    },
    required=("containerPort",),
    unserved=("hostPort", "hostIP"),
)

_RESOURCES = Struct({"requests": MapOf(Amount()), "limits": MapOf(Amount())}, unserved=("claims",))

CONTAINER = Struct(
    {
        "name": Text(63),
        "image": Text(1024),
        "command": ListOf(Text(1 << 17)),
        "args": ListOf(Text(1 << 17)),
        "workingDir": Text(4096),
        "env": ListOf(_ENV),
        "ports": ListOf(_PORT),
        "resources": _RESOURCES,
        "imagePullPolicy": Text(choices=("Always", "IfNotPresent", "Never")),
        "terminationMessagePath": Only("/dev/termination-log"),
        "terminationMessagePolicy": Only("File"),
        "stdin": Only(False),
        "stdinOnce": Only(False),
        "tty": Only(False),
        "securityContext": Struct({}, unserved=("privileged", "runAsUser", "runAsNonRoot", "capabilities")),
    },
    required=("name", "image"),
    unserved=(
        "envFrom",
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "resizePolicy",
        "restartPolicy",
        "startupProbe",
        "volumeDevices",
        "volumeMounts",
    ),
)

_TOLERATION = Struct(
    {
        "key": Text(317),
        "operator": Text(choices=("Exists", "Equal")),
        "value": Text(63),
        "effect": Text(choices=("NoSchedule", "PreferNoSchedule", "NoExecute")),
        "tolerationSeconds": Integer(-(2**63), 2**63 - 1),
    }
)

POD_SPEC = Struct(
    {
        "containers": ListOf(CONTAINER, "name", limit=64),
        "initContainers": ListOf(CONTAINER, "name", limit=64),
        "restartPolicy": Text(choices=("Always", "OnFailure", "Never")),
        "terminationGracePeriodSeconds": Integer(0, 86400),
        "nodeName": Text(253),
        "nodeSelector": _TEXTS,
        "tolerations": ListOf(_TOLERATION),
        "hostname": Text(63),
        "schedulerName": Only("default-scheduler"),
        "dnsPolicy": Only("ClusterFirst"),
        "enableServiceLinks": Boolean(),
        "securityContext": Struct({}, unserved=("runAsUser", "runAsNonRoot", "fsGroup", "sysctls")),
        "serviceAccount": Only("default"),
        "serviceAccountName": Only("default"),
        "preemptionPolicy": Only("PreemptLowerPriority"),
        "priority": Only(0),
        "hostNetwork": Only(False),
        "hostPID": Only(False),
        "hostIPC": Only(False),
    },
    required=("containers",),
    unserved=(
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "ephemeralContainers",
        "hostAliases",
        "imagePullSecrets",
        "overhead",
        "priorityClassName",
        "readinessGates",
        "runtimeClassName",
        "schedulingGates",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "topologySpreadConstraints",
        "volumes",
    ),
)

TEMPLATE = Struct({"metadata": METADATA, "spec": POD_SPEC}, required=("spec",))

_EXPRESSION = Struct(
    {
        "key": Text(317),
        "operator": Text(choices=("In", "NotIn", "Exists", "DoesNotExist")),
        "values": ListOf(Text(63)),
    },
    required=("key", "operator"),
)
SELECTOR = Struct({"matchLabels": _TEXTS, "matchExpressions": ListOf(_EXPRESSION)})

_REPLICA_SET_SPEC = Struct(
    {"replicas": Integer(0, 100_000), "selector": SELECTOR, "template": TEMPLATE, "minReadySeconds": _COUNT},
    required=("selector", "template"),
)

_DEPLOYMENT_SPEC = Struct(
    {
        "replicas": Integer(0, 100_000),
        "selector": SELECTOR,
        "template": TEMPLATE,
        "minReadySeconds": _COUNT,
        "strategy": Struct(
            {
                "type": Text(choices=("RollingUpdate", "Recreate")),
                "rollingUpdate": Struct({"maxSurge": IntegerOrPercent(), "maxUnavailable": IntegerOrPercent()}),
            }
        ),
        "revisionHistoryLimit": _COUNT,
        "paused": Boolean(),
        "progressDeadlineSeconds": _COUNT,
    },
    required=("selector", "template"),
)

_TAINT = Struct(
    {
        "key": Text(317),
        "value": Text(63),
        "effect": Text(choices=("NoSchedule", "PreferNoSchedule", "NoExecute")),
        "timeAdded": Moment(),
    },
    required=("key", "effect"),
)

_NODE_SPEC = Struct(
    {
        "unschedulable": Boolean(),
        "taints": ListOf(_TAINT),
        "providerID": Text(1024),
    },
    unserved=("podCIDR", "podCIDRs", "configSource", "externalID"),
)

_LEASE_SPEC = Struct(
    {
        "holderIdentity": Text(1024),
        "leaseDurationSeconds": Integer(1),
        "acquireTime": Moment(),
        "renewTime": Moment(),
        "leaseTransitions": _COUNT,
        "preferredHolder": Text(1024),
        "strategy": Text(253),
    }
)

_EVENT_FIELDS: dict[str, Type] = {
    "involvedObject": Opaque(),
    "reason": Text(128),
    "message": Text(1024),
    "source": Opaque(),
    "firstTimestamp": Moment(),
    "lastTimestamp": Moment(),
    "count": _COUNT,
    "type": Text(choices=("Normal", "Warning")),
    "eventTime": Moment(),
    "series": Opaque(),
    "action": Text(128),
    "related": Opaque(),
    "reportingComponent": Text(253),
    "reportingInstance": Text(128),
}


def _shape(spec: Struct | None, required: tuple[str, ...] = ("metadata",)) -> Struct:
    fields: dict[str, Type] = {"apiVersion": Text(), "kind": Text(), "metadata": METADATA, "status": Opaque()}
    return Struct({**fields, "spec": spec} if spec else fields, required=required)


SHAPES: dict[kinds.Kind, Struct] = {
    kinds.NAMESPACE: _shape(Struct({"finalizers": ListOf(Text(253))})),
    kinds.NODE: _shape(_NODE_SPEC),
    kinds.POD: _shape(POD_SPEC, ("metadata", "spec")),
    kinds.REPLICA_SET: _shape(_REPLICA_SET_SPEC, ("metadata", "spec")),
    kinds.DEPLOYMENT: _shape(_DEPLOYMENT_SPEC, ("metadata", "spec")),
    kinds.LEASE: _shape(_LEASE_SPEC),
    kinds.EVENT: Struct(
        {"apiVersion": Text(), "kind": Text(), "metadata": METADATA, **_EVENT_FIELDS},
        required=("metadata", "involvedObject"),
    ),
}
