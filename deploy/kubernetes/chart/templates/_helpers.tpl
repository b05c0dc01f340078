{{/* Before the name of each object. The same whatever the release is called: a cluster has one driver of a name. */}}
{{- define "holdfast.fullname" -}}
{{- .Values.fullnameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of a component's objects. Takes (dict "root" $ "component" NAME), as those below do. */}}
{{- define "holdfast.name" -}}
{{- printf "%s-%s" (include "holdfast.fullname" .root) .component -}}
{{- end -}}

{{/* What selectors go by: never to be changed. */}}
{{- define "holdfast.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of pods: no version, so that an upgrade changes only pods whose image or arguments change. */}}
{{- define "holdfast.podLabels" -}}
{{ include "holdfast.selectorLabels" . }}
app.kubernetes.io/part-of: holdfast
{{- end -}}

{{- define "holdfast.labels" -}}
{{ include "holdfast.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Values.managedBy | default .root.Release.Service }}
{{- if not .root.Values.managedBy }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}
{{- end -}}

{{/* The program's image. */}}
{{- define "holdfast.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* The image of a sidecar: (dict "root" $ "sidecar" NAME). */}}
{{- define "holdfast.sidecarImage" -}}
{{- $image := get .root.Values.csi.sidecars .sidecar -}}
image: {{ printf "%s:%s" $image.repository $image.tag | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}

{{/* Settings that every role has. */}}
{{- define "holdfast.env" -}}
- {name: HOLDFAST_LOG, value: {{ .Values.log | quote }}}
- {name: HOLDFAST_LOG_FORMAT, value: {{ .Values.logFormat | quote }}}
{{- end -}}

{{- define "holdfast.podNameEnv" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- end -}}

{{/* Where to listen: (dict "root" $ "port" PORT). */}}
{{- define "holdfast.anyAddress" -}}
{{- printf "%s:%d" (.root.Values.ipv6 | ternary "[::]" "0.0.0.0") (int .port) -}}
{{- end -}}

{{/* The lasting name of a pod of a StatefulSet: (dict "root" $ "component" NAME "port" PORT). The namespace comes
     from the pod, so that kustomize may change it. */}}
{{- define "holdfast.podAddress" -}}
{{- $service := printf "%s.$(NAMESPACE).svc.%s" (include "holdfast.name" .) .root.Values.clusterDomain -}}
{{- printf "$(POD_NAME).%s:%d" $service (int .port) -}}
{{- end -}}

{{/* What every pod has: (dict "root" $ "component" NAME "values" VALUES). */}}
{{- define "holdfast.podSpec" -}}
serviceAccountName: {{ include "holdfast.name" . }}
# Only containers that ask the API server get a token: by the volume api-access.
automountServiceAccountToken: false
# No variables of Services, some of which would look like settings.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of a pod that needs no rights at all. */}}
{{- define "holdfast.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  # Not on every start: a disk has a great many files.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "holdfast.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* One pod of a component for each host: (dict "root" $ "component" NAME "rule" preferred|required). */}}
{{- define "holdfast.antiAffinity" -}}
affinity:
  podAntiAffinity:
    {{- if eq .rule "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "holdfast.selectorLabels" . | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "holdfast.selectorLabels" . | nindent 14 }}
    {{- end }}
{{- end -}}

{{/* Pods of a component over hosts and zones, as above. A cluster without zones has one. */}}
{{- define "holdfast.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ eq $.rule "required" | ternary "DoNotSchedule" "ScheduleAnyway" }}
    labelSelector:
      matchLabels: {{- include "holdfast.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* What automountServiceAccountToken would mount, for some of a pod's containers. */}}
{{- define "holdfast.apiAccessVolume" -}}
- name: api-access
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{- define "holdfast.apiAccessMount" -}}
- {name: api-access, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{/* A pod waits until the Secret has the key: (dict "root" $ "holder" admin|client). */}}
{{- define "holdfast.credentialVolume" -}}
- name: credential
  secret:
    secretName: {{ get .root.Values.credentials (printf "%sSecret" .holder) }}
    defaultMode: 0440
    items: [{key: {{ .holder }}.credential, path: {{ .holder }}.credential}]
{{- end -}}

{{- define "holdfast.credentialMount" -}}
- {name: credential, mountPath: /etc/holdfast, readOnly: true}
{{- end -}}

{{/* Whose credential a node's driver has. */}}
{{- define "holdfast.nodeHolder" -}}
{{- .Values.csi.inlineVolumes | ternary "admin" "client" -}}
{{- end -}}

{{/* A server is asked by a program beside it, with the server's own identity: there is no HTTP, and UDP cannot be
     probed. Only the last asks about others: no server is restarted for another's fault. Takes the directory. */}}
{{- define "holdfast.serverProbes" -}}
# A large log or many packs take time to open.
startupProbe:
  exec: {command: [holdfast, probe, --dir={{ . }}]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 300
livenessProbe:
  exec: {command: [holdfast, probe, --dir={{ . }}]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 4
readinessProbe:
  exec: {command: [holdfast, probe, --dir={{ . }}, --ready]}
  periodSeconds: 10
  timeoutSeconds: 10
{{- end -}}

{{- define "holdfast.pluginDir" -}}
{{- printf "%s/plugins/%s" .Values.csi.kubeletDir .Values.csi.driverName -}}
{{- end -}}

{{/* A disruption budget: (dict "root" $ "component" NAME "values" VALUES). */}}
{{- define "holdfast.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "holdfast.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "holdfast.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that does not get ready is no reason to keep its host.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "holdfast.selectorLabels" . | nindent 6 }}
{{- end -}}
