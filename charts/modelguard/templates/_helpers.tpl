{{/*
The name of everything the release makes, cluster-scoped objects included. A Service allows neither dots nor more than
63 characters in its name, a release allows both.
*/}}
{{- define "modelguard.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}
{{- $name = printf "%s-%s" $name .Chart.Name -}}
{{- end -}}
{{- $name | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "modelguard.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/*
Merged as a dict: a label of the user's must neither appear twice nor replace one of ours.
*/}}
{{- define "modelguard.labels" -}}
{{- $ours := include "modelguard.selectorLabels" . | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $ours .Values.commonLabels | toYaml -}}
{{- end -}}

{{/*
Without the chart's version, which would restart the pods for every change of the chart.
*/}}
{{- define "modelguard.podLabels" -}}
{{- merge (include "modelguard.selectorLabels" . | fromYaml) .Values.podLabels .Values.commonLabels | toYaml -}}
{{- end -}}

{{/*
Never the namespace's default ServiceAccount: matchConditions and the FlowSchema trust this identity.
*/}}
{{- define "modelguard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "modelguard.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name must be set when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "modelguard.secretName" -}}
{{- .Values.certificates.secretName | default (printf "%s-tls" (include "modelguard.fullname" .)) -}}
{{- end -}}

{{- define "modelguard.image" -}}
{{- $image := printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- if .Values.image.digest -}}
{{- $image = printf "%s@%s" $image .Values.image.digest -}}
{{- end -}}
{{- $image -}}
{{- end -}}

{{/*
"true" when the chart runs the webhook, empty when it runs outside of the cluster.
*/}}
{{- define "modelguard.inCluster" -}}
{{- if and .Values.webhooks.url .Values.service.externalName -}}
{{- fail "set webhooks.url or service.externalName, not both: each says where the webhook runs" -}}
{{- end -}}
{{- if not (or .Values.webhooks.url .Values.service.externalName) -}}true{{- end -}}
{{- end -}}

{{/*
clientConfig of one entry; takes (dict "root" $ "path" "/…"). An empty caBundle is left out, for a rendered empty value
would differ from what the API server stores on every comparison.
*/}}
{{- define "modelguard.clientConfig" -}}
{{- $root := .root -}}
{{- if $root.Values.webhooks.url -}}
url: {{ printf "%s%s" (trimSuffix "/" $root.Values.webhooks.url) .path | quote }}
{{- else -}}
service:
  namespace: {{ $root.Release.Namespace | quote }}
  name: {{ include "modelguard.fullname" $root }}
  port: {{ $root.Values.service.port }}
  path: {{ .path }}
{{- end }}
{{- with $root.Values.certificates.caBundle }}
caBundle: {{ b64enc . }}
{{- end }}
{{- end -}}

{{/*
Namespaces that no entry ever looks at: a webhook that can block its own pods, or the cluster's, cannot be repaired.
*/}}
{{- define "modelguard.namespaceExclusion" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
    {{- $fixed := list .Release.Namespace "kube-system" "kube-public" "kube-node-lease" }}
    {{- concat $fixed .Values.webhooks.excludeNamespaces | uniq | toYaml | nindent 4 }}
{{- end -}}
