{{/*
The pod of a role. Call with root, role, args (list), and where needed
  port      9201 by default
  settings  the group that has the port's certificates, `web` by default
  folder    where the volume `data` is mounted
  drain     seconds between the request to stop and the signal
  models    whether checkpoints are fetched
*/}}
{{- define "openanomaly.pod" -}}
{{- $root := .root }}
{{- $config := $root.Values.config }}
{{- $values := index $root.Values .role }}
{{- $pod := mergeOverwrite (deepCopy $root.Values.pod) $values.pod }}
{{- $tls := include "openanomaly.tls" (dict "root" $root "settings" (.settings | default "web")) | fromJson }}
metadata:
  labels:
    {{- include "openanomaly.labels" . | nindent 4 }}
    {{- with $pod.labels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    # Pods take over other pipelines while they run, but for the playground; other settings hold for new ones.
    openanomaly/settings: {{ ternary $config (omit $config "pipelines") (eq .role "playground") | toJson | sha256sum }}
    {{- with $pod.annotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  automountServiceAccountToken: false
  # Their variables would begin with OPENANOMALY_ as ours do.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $pod.terminationGracePeriodSeconds }}
  {{- range $name := list "serviceAccountName" "priorityClassName" "runtimeClassName" }}
  {{- with index $pod $name }}
  {{ $name }}: {{ . }}
  {{- end }}
  {{- end }}
  {{- range $name := list "nodeSelector" "tolerations" "affinity" }}
  {{- with index $pod $name }}
  {{ $name }}: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $pod.topologyKeys }}
  topologySpreadConstraints:
    {{- range . }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "openanomaly.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  securityContext: {{- include "openanomaly.podSecurity" . | nindent 4 }}
  containers:
    - name: {{ .role }}
      image: {{ include "openanomaly.image" . | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{- toYaml .args | nindent 8 }}
      {{- include "openanomaly.environment" . | nindent 6 }}
      ports:
        - {name: http, containerPort: {{ .port | default 9201 }}}
      startupProbe:
        {{- include "openanomaly.probe" (dict "path" "/-/healthy" "tls" $tls) | nindent 8 }}
        # A checkpoint is read, and fetched at first, before the port opens.
        periodSeconds: 5
        failureThreshold: 120
      readinessProbe:
        {{- include "openanomaly.probe" (dict "path" "/-/ready" "tls" $tls) | nindent 8 }}
        timeoutSeconds: 5
      livenessProbe:
        {{- include "openanomaly.probe" (dict "path" "/-/healthy" "tls" $tls) | nindent 8 }}
        # Recovery answers too, so silence is a hang.
        timeoutSeconds: 5
        failureThreshold: 6
      {{- if .drain }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ .drain | quote }}]}
      {{- end }}
      securityContext: {{- include "openanomaly.containerSecurity" . | nindent 8 }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        {{- include "openanomaly.mounts" . | nindent 8 }}
        {{- with .folder }}
        - {name: data, mountPath: {{ . }}}
        {{- end }}
        {{- if .models }}
        - {name: models, mountPath: /var/cache/openanomaly}
        {{- end }}
  volumes:
    {{- include "openanomaly.volumes" . | nindent 4 }}
    {{- if .models }}
    - name: models
      {{- if $root.Values.modelCache.claim }}
      persistentVolumeClaim: {claimName: {{ $root.Values.modelCache.claim }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $root.Values.modelCache.sizeLimit }}}
      {{- end }}
    {{- end }}
{{- end }}

{{- define "openanomaly.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
# Volumes belong to it, and secrets can be read by it.
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "openanomaly.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables of every container. */}}
{{- define "openanomaly.environment" -}}
{{- with .root.Values.secret -}}
envFrom:
  - secretRef: {name: {{ . }}}
{{ end -}}
env:
  - {name: HF_HOME, value: /var/cache/openanomaly}
  {{- with .root.Values.env }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}

{{/* Settings, certificates, and a place for temporary files beside a root that is read-only. */}}
{{- define "openanomaly.mounts" -}}
- {name: config, mountPath: /etc/openanomaly/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- range $name, $_ := .root.Values.files }}
- {name: file-{{ $name }}, mountPath: /etc/openanomaly/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "openanomaly.volumes" -}}
- name: config
  configMap: {name: {{ .root.Release.Name }}-config}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- range $name, $source := .root.Values.files }}
- name: file-{{ $name }}
  {{- if $source.secret }}
  secret: {secretName: {{ $source.secret }}, defaultMode: 0440}
  {{- else }}
  configMap: {name: {{ $source.configMap }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* How the kubelet asks. It has no certificate to show, so where we want one it only knocks. */}}
{{- define "openanomaly.probe" -}}
{{- if .tls.client_ca_file -}}
tcpSocket: {port: http}
{{- else if .tls.cert_file -}}
httpGet: {path: {{ .path }}, port: http, scheme: HTTPS}
{{- else -}}
httpGet: {path: {{ .path }}, port: http}
{{- end }}
{{- end }}

{{/* How a role begins: the command line of the product. */}}
{{- define "openanomaly.args" -}}
{{- list .command "--config" "/etc/openanomaly/config/openanomaly.yaml" "--listen" (printf ":%v" (.port | default 9201)) | toJson }}
{{- end }}

{{/* The volume of a role that keeps something. */}}
{{- define "openanomaly.claim" -}}
{{- $volume := (index .root.Values .role).volume }}
- metadata:
    name: data
    labels: {{- include "openanomaly.selector" . | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $volume.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ $volume.size }}}}
{{- end }}
