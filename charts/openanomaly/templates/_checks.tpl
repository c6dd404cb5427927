{{/* Values that cannot work are refused here, before a pod fails on them. */}}
{{- define "openanomaly.checks" -}}
{{- $config := .Values.config }}
{{- $url := dig "broker" "url" "" $config | default "" }}
{{- $roles := include "openanomaly.roles" . | fromJsonArray }}

{{- if gt (len .Release.Name) 40 }}
{{- fail (printf "the release name %q has more than 40 characters: names of its pods would be too long for Kubernetes" .Release.Name) }}
{{- end }}
{{- if not $roles }}
{{- fail "nothing would run: set stream to roles or standalone, or pull.enabled, api.enabled or playground.enabled" }}
{{- end }}

{{- if eq .Values.stream "roles" }}
{{- if not $url }}
{{- fail "set config.broker.url: kafka://HOST:PORT of the brokers (or stream: standalone, which needs none)" }}
{{- end }}
{{- if not (hasPrefix "kafka://" $url) }}
{{- fail (printf "set config.broker.url: kafka://HOST:PORT of the brokers, not %q: roles in pods of their own meet on Kafka" $url) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.stream "standalone") (hasPrefix "kafka://" $url) }}
{{- fail "config.broker.url is a Kafka: stream standalone has a broker of its own; leave it out, or set stream: roles" }}
{{- end }}
{{- if and (or (ne .Values.stream "none") .Values.pull.enabled) (not (dig "sink" "url" "" $config)) }}
{{- fail "set config.sink.url: where scores are written, http://HOST:8428/api/v1/write for VictoriaMetrics" }}
{{- end }}
{{- if and .Values.pull.enabled (not (dig "pull" "url" "" $config)) }}
{{- fail "set config.pull.url: the database that pull mode asks, http://HOST:9090 for Prometheus" }}
{{- end }}

{{- /* They would stand in a ConfigMap, for everybody who may read those. */}}
{{- range $path := list
  "broker.sasl_password"
  "web.auth.bearer_token" "web.auth.password" "web.admin_auth.bearer_token" "web.admin_auth.password"
  "sink.bearer_token" "sink.password" "pull.bearer_token" "pull.password"
  "api.auth.bearer_token" "api.auth.password" "api.admin_token"
  "playground.auth.bearer_token" "playground.auth.password" }}
{{- $value := $config }}
{{- range $name := splitList "." $path }}
{{- $value = get ($value | default dict) $name | default dict }}
{{- end }}
{{- if $value }}
{{- fail (printf "config.%s would stand in a ConfigMap: put OPENANOMALY_%s into the Secret that `secret` names" $path ($path | replace "." "_" | upper)) }}
{{- end }}
{{- end }}
{{- range $path := list "sink.headers" "pull.headers" }}
{{- $parts := splitList "." $path }}
{{- range $name, $_ := dig (index $parts 0) (index $parts 1) (dict) $config | default dict }}
{{- /* Those that name a tenant are no secrets. */}}
{{- if not (has (lower $name) (list "x-scope-orgid" "accountid" "projectid")) }}
{{- fail (printf "config.%s.%s may be a secret, which would stand in a ConfigMap: put OPENANOMALY_%s into the Secret that `secret` names" $path $name ($path | replace "." "_" | upper)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if regexMatch "//[^/]*@" $url }}
{{- fail "config.broker.url has credentials: set config.broker.sasl_username, and put OPENANOMALY_BROKER_SASL_PASSWORD into the Secret that `secret` names" }}
{{- end }}
{{- range $path := list "sink.url" "pull.url" "store.url" "api.admin_url" }}
{{- $parts := splitList "." $path }}
{{- if regexMatch "//[^/]*@" (dig (index $parts 0) (index $parts 1) "" $config | default "") }}
{{- fail (printf "config.%s has credentials, which would stand in a ConfigMap: leave them out of it, and put OPENANOMALY_%s into the Secret that `secret` names" $path ($path | replace "." "_" | upper)) }}
{{- end }}
{{- end }}

{{- if .Values.podMonitor.enabled }}
{{- $shown := .Values.podMonitor.tlsConfig | default dict }}
{{- range $settings := include "openanomaly.ports" . | fromJsonArray }}
{{- $tls := include "openanomaly.tls" (dict "root" $ "settings" $settings) | fromJson }}
{{- if and $tls.client_ca_file (not (and $shown.cert $shown.keySecret)) }}
{{- fail (printf "set podMonitor.tlsConfig.cert and .keySecret: with config.%s.tls.client_ca_file who scrapes must show a certificate" $settings) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name := .Values.prometheusRule.files }}
{{- if not ($.Files.Get (printf "files/alerts/%s.yaml" $name)) }}
{{- fail (printf "prometheusRule.files: there are no rules %q" $name) }}
{{- end }}
{{- end }}
{{- if ne (empty .Values.test.certFile) (empty .Values.test.keyFile) }}
{{- fail "test.certFile and test.keyFile belong together" }}
{{- end }}

{{- if eq .Values.stream "roles" }}
{{- $partitions := dig "broker" "partitions" 16 $config | int }}
{{- range $role := list "window" "inference" "sink" }}
{{- $values := index $.Values $role }}
{{- $scaling := $values.autoscaling | default dict }}
{{- $most := ternary $scaling.maxReplicas $values.replicas ($scaling.enabled | default false) | int }}
{{- if gt $most $partitions }}
{{- fail (printf "%s: %d pods for %d partitions (config.broker.partitions): one without a partition ends itself again and again" $role $most $partitions) }}
{{- end }}
{{- if and $scaling.enabled (not $.Values.keda.serverAddress) }}
{{- fail (printf "set keda.serverAddress: %s.autoscaling asks it for the lag, http://HOST:9090 of the Prometheus that scrapes these pods" $role) }}
{{- end }}
{{- end }}
{{- range $role := list "receiver" "window" "inference" }}
{{- $scaling := (index $.Values $role).autoscaling }}
{{- if and $scaling.enabled (gt ($scaling.minReplicas | int) ($scaling.maxReplicas | int)) }}
{{- fail (printf "%s.autoscaling: minReplicas %v is more than maxReplicas %v" $role $scaling.minReplicas $scaling.maxReplicas) }}
{{- end }}
{{- end }}
{{- end }}

{{- $session := dig "broker" "session_timeout_s" 15 $config | toString | trim }}
{{- $unit := regexFind "[a-z]+$" $session | default "s" }}
{{- $session = mulf (regexFind "^[0-9.]+" $session) (get (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400 "w" 604800) $unit) }}
{{- range $role := $roles }}
{{- $own := (index $.Values $role).pod }}
{{- $grace := $own.terminationGracePeriodSeconds | default $.Values.pod.terminationGracePeriodSeconds }}
{{- $drain := (index $.Values $role).drainSeconds | default 0 }}
{{- if le ($grace | float64) (addf $session $drain 10) }}
{{- fail (printf "%s: terminationGracePeriodSeconds %v is too short: it must be more than broker.session_timeout_s (%v), drainSeconds (%v) and the 10 s of a stop together" $role $grace $session $drain) }}
{{- end }}
{{- end }}
{{- end }}
