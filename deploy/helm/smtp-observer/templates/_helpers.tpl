{{/* The name of everything: the release's, with the chart's unless that is in it. */}}
{{- define "smtp-observer.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "smtp-observer.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "smtp-observer.labels" -}}
{{ include "smtp-observer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "smtp-observer.image" -}}
{{- $repository := required "image.repository is not set: push the image that `cargo xtask image` makes to a registry, and name it here" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* YAML reads off without quotes as false. */}}
{{- define "smtp-observer.tls" -}}
{{- ternary (toString .Values.tls) "off" (has (toString .Values.tls) (list "auto" "all")) -}}
{{- end -}}

{{/* A password holds for every path, and a probe has none. */}}
{{- define "smtp-observer.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.webConfig.secretName -}}
tcpSocket: {port: http}
{{- else -}}
httpGet: {path: {{ index . 1 }}, port: http}
{{- end -}}
{{- end -}}
