{{/* Labels of everything; `.role` adds the role. Call with (dict "root" $ "role" "window"). */}}
{{- define "openanomaly.labels" -}}
app.kubernetes.io/name: openanomaly
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .role }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* The Deployment of one role: they differ in command, replicas, image and resources only. */}}
{{- define "openanomaly.deployment" -}}
{{- $values := index .root.Values .role }}
{{- $image := $values.image | default dict }}
{{- $port := .root.Values.receiver.service.port }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .role }}
  labels: {{- include "openanomaly.labels" . | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels: {{- include "openanomaly.labels" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "openanomaly.labels" . | nindent 8 }}
      annotations:
        # A changed configuration starts new pods.
        openanomaly/config: {{ toJson .root.Values.config | sha256sum }}
    spec:
      automountServiceAccountToken: false
      # Their variables would begin with OPENANOMALY_ as ours do.
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .role }}
          image: "{{ $image.repository | default .root.Values.image.repository }}:{{ $image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}"
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [{{ .role }}, --config, /etc/openanomaly/openanomaly.yaml, --listen, ":{{ $port }}"]
          {{- with .root.Values.secret }}
          envFrom:
            - secretRef: {name: {{ . }}}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ $port }}}
          startupProbe:
            httpGet: {path: /-/healthy, port: http}
            # A checkpoint is read, and downloaded at first, before the port opens.
            periodSeconds: 5
            failureThreshold: 120
          readinessProbe:
            httpGet: {path: /-/ready, port: http}
          livenessProbe:
            httpGet: {path: /-/healthy, port: http}
            # Recovery answers too, so silence is a hang.
            failureThreshold: 6
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/openanomaly, readOnly: true}
      volumes:
        - name: config
          configMap: {name: {{ .root.Release.Name }}-config}
{{- end }}
