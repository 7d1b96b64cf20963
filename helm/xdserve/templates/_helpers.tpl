{{- define "xdserve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Names are made longer by `-metrics` and `-ca`, and stay below 63 characters. */}}
{{- define "xdserve.fullname" -}}
{{- $name := include "xdserve.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "xdserve.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "xdserve.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "xdserve.image" -}}
{{- with .Values.image }}
{{- .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* What never changes: a Deployment's selector cannot. */}}
{{- define "xdserve.selectorLabels" -}}
app.kubernetes.io/name: {{ include "xdserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "xdserve.labels" -}}
{{ include "xdserve.selectorLabels" . }}
{{ include "xdserve.releaseLabels" . }}
{{- end }}

{{- define "xdserve.releaseLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: xdserve
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "xdserve.testLabels" -}}
app.kubernetes.io/name: {{ include "xdserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{/* An address to listen at: IPv6 stands in brackets. */}}
{{- define "xdserve.listen" -}}
{{- $address := index . 0 }}
{{- contains ":" $address | ternary (printf "[%s]" $address) $address }}:{{ index . 1 }}
{{- end }}

{{- define "xdserve.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "xdserve.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Streams are ended over `drain`: who is killed before cuts them. */}}
{{- define "xdserve.gracePeriod" -}}
{{- $drain := hasKey .Values.settings "drain" | ternary .Values.settings.drain 5 }}
{{- if le (float64 .Values.terminationGracePeriodSeconds) (float64 $drain) }}
{{- fail (printf "terminationGracePeriodSeconds (%v) must be more than settings.drain (%v)" .Values.terminationGracePeriodSeconds $drain) }}
{{- end }}
{{- .Values.terminationGracePeriodSeconds }}
{{- end }}

{{/* YAML takes the bare word off for false. */}}
{{- define "xdserve.provision" -}}
{{- .Values.settings.provision | default "off" }}
{{- end }}
