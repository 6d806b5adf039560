{{- define "earmark.fullname" -}}
{{- if contains "earmark" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-earmark" (.Release.Name | trunc 42 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "earmark.selector" -}}
app.kubernetes.io/name: earmark
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "earmark.labels" -}}
{{ include "earmark.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "earmark.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default (printf "v%s" $.Chart.AppVersion) }}{{ end }}{{ end }}
{{- end }}

{{- define "earmark.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* What the pods of all components share, but for their volumes. */}}
{{- define "earmark.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /* Takes the root and the component. */}}
{{- define "earmark.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread }}
    labelSelector:
      matchLabels:
        {{- include "earmark.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}

{{- /* Postgres and Temporal. Takes the root, and the Secret of the connection string. */}}
{{- define "earmark.connectionEnv" -}}
- name: EARMARK_DATABASE_URL_FILE
  value: /etc/earmark/database/url
{{- with .root.Values.database.caConfigMap.name }}
- name: PGSSLROOTCERT
  value: /etc/earmark/database-ca/ca.crt
{{- end }}
{{- with .root.Values.temporal }}
- name: TEMPORAL_ADDRESS
  value: {{ .address | quote }}
- name: TEMPORAL_NAMESPACE
  value: {{ .namespace | quote }}
{{- with .apiKeySecret }}
{{- if .name }}
- name: TEMPORAL_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- with .tls }}
{{- if or .enabled .caSecret.name .clientSecret.name }}
- name: TEMPORAL_TLS
  value: "true"
{{- end }}
{{- if .serverName }}
- name: TEMPORAL_TLS_SERVER_NAME
  value: {{ .serverName | quote }}
{{- end }}
{{- if .caSecret.name }}
- name: TEMPORAL_TLS_SERVER_CA_CERT_PATH
  value: /etc/earmark/temporal-ca/ca.crt
{{- end }}
{{- if .clientSecret.name }}
- name: TEMPORAL_TLS_CLIENT_CERT_PATH
  value: /etc/earmark/temporal-client/tls.crt
- name: TEMPORAL_TLS_CLIENT_KEY_PATH
  value: /etc/earmark/temporal-client/tls.key
{{- end }}
{{- end }}
{{- if not .searchAttributes }}
- name: EARMARK_WITHOUT_SEARCH_ATTRIBUTES
  value: "true"
{{- end }}
{{- end }}
{{- end }}

{{- define "earmark.connectionMounts" -}}
- name: database
  mountPath: /etc/earmark/database
  readOnly: true
{{- if .Values.database.caConfigMap.name }}
- name: database-ca
  mountPath: /etc/earmark/database-ca
  readOnly: true
{{- end }}
{{- if .Values.temporal.tls.caSecret.name }}
- name: temporal-ca
  mountPath: /etc/earmark/temporal-ca
  readOnly: true
{{- end }}
{{- if .Values.temporal.tls.clientSecret.name }}
- name: temporal-client
  mountPath: /etc/earmark/temporal-client
  readOnly: true
{{- end }}
{{- end }}

{{- /* Takes the root, and the Secret of the connection string. */}}
{{- define "earmark.connectionVolumes" -}}
- name: database
  secret:
    secretName: {{ .secret.name }}
    defaultMode: 0440
    items:
      - key: {{ .secret.key }}
        path: url
{{- with .root.Values.database.caConfigMap }}
{{- if .name }}
- name: database-ca
  configMap:
    name: {{ .name }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .root.Values.temporal.tls.caSecret }}
{{- if .name }}
- name: temporal-ca
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .root.Values.temporal.tls.clientSecret }}
{{- if .name }}
- name: temporal-client
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}

{{- /* What serve and worker have besides. */}}
{{- define "earmark.workerEnv" -}}
- name: EARMARK_OPS_ADDR
  value: :9464
# Metrics, health and profiles ask for no key: the NetworkPolicy says who reaches them. The API asks for keys.
- name: EARMARK_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS
  value: "true"
- name: EARMARK_LOG_LEVEL
  value: {{ .Values.settings.logLevel }}
- name: EARMARK_GRACE
  value: {{ .Values.settings.graceSeconds | int }}s
{{- with .Values.temporal.prefix }}
- name: EARMARK_TEMPORAL_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if .Values.payloadKeys.secret.name }}
- name: EARMARK_PAYLOAD_KEYS_FILE
  value: /etc/earmark/payload-keys/payload.keys
{{- end }}
{{- end }}

{{- define "earmark.workerMounts" -}}
{{- include "earmark.connectionMounts" . }}
{{- if .Values.payloadKeys.secret.name }}
- name: payload-keys
  mountPath: /etc/earmark/payload-keys
  readOnly: true
{{- end }}
{{- end }}

{{- define "earmark.workerVolumes" -}}
{{- include "earmark.connectionVolumes" (dict "root" . "secret" .Values.database.urlSecret) }}
{{- with .Values.payloadKeys.secret }}
{{- if .name }}
- name: payload-keys
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: payload.keys
{{- end }}
{{- end }}
{{- end }}

{{- define "earmark.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: ops}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: ops}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{- /* The names by which the cluster calls the Service, which have dots; and those of the values. */}}
{{- define "earmark.hosts" -}}
{{- $name := printf "%s.%s" (include "earmark.fullname" .) .Release.Namespace }}
{{- concat (list $name (printf "%s.svc" $name) (printf "%s.svc.%s" $name .Values.service.clusterDomain)) .Values.settings.allowedHosts | join "," }}
{{- end }}
