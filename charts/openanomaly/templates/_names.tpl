{{/* Labels that select a role's pods. They never change: a workload's selector cannot. */}}
{{- define "openanomaly.selector" -}}
app.kubernetes.io/name: openanomaly
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .role }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Labels of everything; `.role` adds the role. Call with (dict "root" $ "role" "window"). */}}
{{- define "openanomaly.labels" -}}
{{ include "openanomaly.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name and labels of an object. `.name` is its name behind that of the release, `.role` by default. */}}
{{- define "openanomaly.metadata" -}}
name: {{ .root.Release.Name }}-{{ .name | default .role }}
labels: {{- include "openanomaly.labels" . | nindent 2 }}
{{- end }}

{{/* The role's own image, or that of all. */}}
{{- define "openanomaly.image" -}}
{{- $all := .root.Values.image }}
{{- $own := (index .root.Values .role).image }}
{{- printf "%s:%s" ($own.repository | default $all.repository) ($own.tag | default $all.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{/* The roles that run, in JSON. */}}
{{- define "openanomaly.roles" -}}
{{- $roles := list }}
{{- if eq .Values.stream "roles" }}{{ $roles = list "receiver" "window" "inference" "sink" }}{{ end }}
{{- if eq .Values.stream "standalone" }}{{ $roles = list "standalone" }}{{ end }}
{{- if .Values.pull.enabled }}{{ $roles = append $roles "pull" }}{{ end }}
{{- if .Values.api.enabled }}{{ $roles = append $roles "api" }}{{ end }}
{{- if .Values.playground.enabled }}{{ $roles = append $roles "playground" }}{{ end }}
{{- toJson $roles }}
{{- end }}

{{/* The groups of settings that have a port, in JSON: those besides `web` are roles of the same name. */}}
{{- define "openanomaly.ports" -}}
{{- $ports := list "web" }}
{{- range $role := list "api" "playground" }}
{{- if (index $.Values $role).enabled }}{{ $ports = append $ports $role }}{{ end }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/* The role whose pods take samples, and the one whose pods show the status page. */}}
{{- define "openanomaly.receiving" -}}
{{- ternary "standalone" "receiver" (eq .Values.stream "standalone") }}
{{- end }}
{{- define "openanomaly.showing" -}}
{{- ternary "standalone" "sink" (eq .Values.stream "standalone") }}
{{- end }}

{{/* The settings of TLS of a port, in JSON: `.settings` is `web`, `api` or `playground`. */}}
{{- define "openanomaly.tls" -}}
{{- get (get .root.Values.config .settings | default dict) "tls" | default dict | toJson }}
{{- end }}

{{/* http or https, as that port speaks. */}}
{{- define "openanomaly.scheme" -}}
{{- ternary "https" "http" (not (empty (include "openanomaly.tls" . | fromJson).cert_file)) }}
{{- end }}

{{/* Whether `helm test` has a pod: where clients must show a certificate, it needs one. */}}
{{- define "openanomaly.isTested" -}}
{{- $tls := include "openanomaly.tls" (dict "root" . "settings" "web") | fromJson }}
{{- if and (ne .Values.stream "none") (or (not $tls.client_ca_file) .Values.test.certFile) }}true{{ end }}
{{- end }}
