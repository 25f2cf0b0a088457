{{/* Names are cut to 40 characters: the longest suffix below makes 63. */}}
{{- define "memtenant.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "memtenant.fullname" -}}
{{- $name := include "memtenant.name" . -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "memtenant.selectorLabels" -}}
app.kubernetes.io/name: {{ include "memtenant.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "memtenant.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "memtenant.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: memtenant
{{- end }}

{{- define "memtenant.image" -}}
{{- with .Values.image -}}
{{- $tag := default $.Chart.AppVersion .tag -}}
{{- if .digest }}{{ .repository }}:{{ $tag }}@{{ .digest }}{{ else }}{{ .repository }}:{{ $tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Whole seconds of a period ("20s", "2m", "20", "0.25"), rounded up. */}}
{{- define "memtenant.seconds" -}}
{{- $unit := dict "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 "w" 604800.0 -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- mulf $number (get $unit (regexFind "[a-z]+$" $text | default "s")) | ceil | int64 -}}
{{- end }}

{{/* What the operator may do with Secrets, wherever it may touch them. */}}
{{- define "memtenant.secretRule" -}}
apiGroups: [""]
resources: [secrets]
verbs: [create, delete, get, list, patch, watch]
{{- end }}

{{- define "memtenant.serviceAccountSubject" -}}
kind: ServiceAccount
name: {{ include "memtenant.fullname" . }}
namespace: {{ .Release.Namespace }}
{{- end }}

{{/* Where the key of the audit log is: a namespace in which the operator has no right. */}}
{{- define "memtenant.auditNamespace" -}}
{{- $namespace := default (printf "%s-audit" .Release.Namespace | trunc 63 | trimSuffix "-") .Values.sealer.auditNamespace }}
{{- if eq $namespace .Release.Namespace }}
{{- fail "sealer.auditNamespace: the operator may read every Secret of the release's namespace, and the log's key must not be there. Name another one" }}
{{- end }}
{{- $namespace }}
{{- end }}

{{- define "memtenant.archiveClaim" -}}
{{- default (printf "%s-archive" (include "memtenant.fullname" .)) .Values.archive.existingClaim }}
{{- end }}

{{/* Annotations of an object that lives only while the release is being uninstalled. */}}
{{- define "memtenant.uninstallHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* What the operator's CronJobs run, as a jobTemplate: the operator adds the policy's name. */}}
{{- define "memtenant.reportJob" -}}
{{- $fullname := include "memtenant.fullname" . -}}
{{- $archived := or .Values.sealer.enabled .Values.archive.existingClaim -}}
spec:
  backoffLimit: 1
  activeDeadlineSeconds: {{ include "memtenant.seconds" .Values.reports.deadline }}
  template:
    metadata:
      labels:
        {{- include "memtenant.selectorLabels" . | nindent 8 }}
        app.kubernetes.io/component: report
    spec:
      restartPolicy: Never
      serviceAccountName: {{ $fullname }}-reporter
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.podSecurityContext | nindent 8 }}
      containers:
        - name: report
          image: {{ include "memtenant.image" . | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          command: [memtenant, report, run, --in-cluster]
          args: [--archive, /var/lib/memtenant/archive, --out, /var/lib/memtenant/reports]
          env:
            - name: MEMTENANT_HOME_NAMESPACE
              valueFrom:
                fieldRef:
                  apiVersion: v1
                  fieldPath: metadata.namespace
            - name: MEMTENANT_AUDIT_NAMESPACE
              value: {{ include "memtenant.auditNamespace" . | quote }}
            - name: MEMTENANT_LOG_KEY_READERS
              value: system:serviceaccount:{{ .Release.Namespace }}:{{ $fullname }}-sealer
          resources:
            {{- toYaml .Values.reports.resources | nindent 12 }}
          securityContext:
            {{- toYaml .Values.securityContext | nindent 12 }}
          volumeMounts:
            {{- if $archived }}
            - name: archive
              mountPath: /var/lib/memtenant/archive
              readOnly: true
            {{- end }}
            - name: reports
              mountPath: /var/lib/memtenant/reports
            - name: reporter
              mountPath: /var/run/memtenant/reporter
              readOnly: true
            {{- range $place, $name := .Values.reports.keyrings }}
            - name: keyring-{{ $place }}
              mountPath: /var/run/memtenant/keyrings/{{ $name }}
              readOnly: true
            {{- end }}
            - name: tmp
              mountPath: /tmp
      volumes:
        {{- if $archived }}
        - name: archive
          persistentVolumeClaim:
            claimName: {{ include "memtenant.archiveClaim" . }}
            readOnly: true
        {{- end }}
        - name: reports
          persistentVolumeClaim:
            claimName: {{ default (printf "%s-reports" $fullname) .Values.reports.storage.existingClaim }}
        # Made by the operator; without it stores are not looked at, and the report says so.
        - name: reporter
          secret:
            secretName: memtenant-reporter
            optional: true
            defaultMode: 288
        {{- range $place, $name := .Values.reports.keyrings }}
        # Of a binding nothing but its keys: no password. One that is gone keeps no run from starting.
        - name: keyring-{{ $place }}
          secret:
            secretName: {{ $name }}
            optional: true
            defaultMode: 288
            items:
              - {key: keyring.json, path: keyring.json}
        {{- end }}
        - name: tmp
          emptyDir:
            medium: Memory
            sizeLimit: 16Mi
      {{- with .Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if and .Values.sealer.enabled (not (has "ReadWriteMany" .Values.archive.accessModes)) }}
      # The archive is mounted on one node: the sealer's.
      affinity:
        podAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  {{- include "memtenant.selectorLabels" . | nindent 18 }}
                  app.kubernetes.io/component: sealer
      {{- end }}
{{- end }}
