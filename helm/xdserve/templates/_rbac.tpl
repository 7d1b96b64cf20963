{{/*
What xdserve may do, each rule with its reason: docs/rbac.md is made of these lines. Status, Events and gateways are the
leader's work, but every replica may become the leader.
*/}}

{{/* In every namespace that is watched. */}}
{{- define "xdserve.rules.watched" -}}
# Gateways are made from the InferenceServices of KServe.
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices]
  verbs: [get, list, watch]
# Gateways are made from the Inferences of KubeDL.
- apiGroups: [serving.kubedl.io]
  resources: [inferences]
  verbs: [get, list, watch]
# What their owners and the platform say of them.
- apiGroups: [xdserve.io]
  resources: [trafficpolicies, servicegateways]
  verbs: [get, list, watch]
# Ports and protocols of backends.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
# Which endpoints there are, and which of them are ready.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# Whether a reference into another namespace is allowed.
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [get, list, watch]
{{- if .Values.rbac.secrets }}
# Secrets that an object names. Neither list nor watch: what nobody names cannot be found.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
{{- if .Values.rbac.configMaps }}
# Authorities that a policy names. Neither list nor watch: what nobody names cannot be found.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{- end }}
# The condition of its gateway on an InferenceService; other fields of the status belong to KServe.
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices/status]
  verbs: [patch]
# The condition of its gateway on an Inference; other fields of the status belong to KubeDL.
- apiGroups: [serving.kubedl.io]
  resources: [inferences/status]
  verbs: [patch]
# What has become of a policy or a gateway.
- apiGroups: [xdserve.io]
  resources: [trafficpolicies/status, servicegateways/status]
  verbs: [patch]
# What happened, told on the object; a repeated Event is counted in place.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, create, patch]
{{- if ne (include "xdserve.provision" .) "off" }}
# Gateways: server-side apply makes and mends them (create and patch), and takes away what is not wanted any more.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, create, patch, delete]
{{- if .Values.rbac.pods }}
# Why pods of a gateway do not start: those with its labels are listed, while it has no Envoy.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- end }}
# The entrance of a gateway.
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch, delete]
# Who a gateway is; it gets no rights.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, create, patch, delete]
# The bootstrap of a gateway. No list: of others those are read that a caRef names.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
# A gateway with several replicas never loses all of them to a drained node.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
{{- end }}
{{- end }}

{{/* In the namespace of KServe's ConfigMap: (root, its name). */}}
{{- define "xdserve.rules.kserve" -}}
# How KServe names hosts: its own ConfigMap alone.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ index . 1 }}]
  verbs: [get]
{{- end }}

{{/* For what has no namespace. */}}
{{- define "xdserve.rules.cluster" -}}
# Who an Envoy is: the apiserver judges the token that it shows.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}

{{/* In the namespace of the release. */}}
{{- define "xdserve.rules.own" -}}
# Who leads. A rule for create cannot name the Lease.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
# Who leads, and for how long: its own Lease alone.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "xdserve.fullname" . }}]
  verbs: [get, update]
# What each replica tells the leader of its Envoys. Apply needs create and patch.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch, create, patch, delete]
{{- if not .Values.tls.secretName }}
# Its own authority. The chart makes the Secret, empty: who may create Secrets gets tokens of any ServiceAccount there.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "xdserve.fullname" . }}-ca]
  verbs: [get, update]
{{- end }}
{{- end }}

{{/* One binding: (root, kind of role, its name). */}}
{{- define "xdserve.bound" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 1 }}
  name: {{ index . 2 }}
subjects:
- kind: ServiceAccount
  name: {{ include "xdserve.serviceAccountName" (index . 0) }}
  namespace: {{ (index . 0).Release.Namespace }}
{{- end }}
