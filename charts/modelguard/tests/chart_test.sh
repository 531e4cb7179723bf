#!/usr/bin/env bash
# Renders the chart over a matrix of values, with both majors of Helm, and looks whether what must always hold does.
# HELM and HELM3 name the binaries. Needs no cluster; apiserver_test.sh asks a real API server.
set -euo pipefail

: "${HELM:?names the binary of Helm 4}" "${HELM3:?names the binary of Helm 3}"
chart=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing of the user's own Helm takes part.
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data HELM_NO_PLUGINS=1

failures=0
case=''
failed() {
  failures=$((failures + 1))
  printf 'FAIL %s: %s\n' "$case" "$*" >&2
}

# The oldest Kubernetes, unless the arguments say otherwise: without any, each Helm has another idea of the newest.
template() {
  "$1" template "${release:-modelguard}" "$chart" --namespace "${namespace:-guard}" --kube-version 1.30.0 "${@:2}"
}

# documents FILE: one a line, in an order of their own. The majors sort kinds, and leave lines blank, differently.
documents() {
  awk '/^---/ { print doc; doc = ""; next } NF { doc = doc $0 "\\n" } END { print doc }' "$1" | sort
}

# render CASE [ARGUMENT]...: $work/rendered is what both majors make of it, which must be the same.
render() {
  case=$1
  : >"$work/rendered"
  template "$HELM" "${@:2}" >"$work/rendered" 2>"$work/error" || failed "helm 4: $(cat "$work/error")"
  template "$HELM3" "${@:2}" >"$work/rendered3" 2>"$work/error" || failed "helm 3: $(cat "$work/error")"
  diff <(documents "$work/rendered") <(documents "$work/rendered3") >"$work/difference" ||
    failed "the majors differ: $(head -c 1000 "$work/difference")"
}

# object KIND: $work/object is that document of the last rendering, without its indentation; empty when there is none.
# (In a file: `grep -q` at the end of a pipe would end the pipe's other side with an error.)
object() {
  awk -v kind="kind: $1" '
    function flush() { if (("\n" doc) ~ ("\n" kind "\n")) printf "%s", doc; doc = "" }
    /^---/ { flush(); next } { doc = doc $0 "\n" } END { flush() }' "$work/rendered" |
    sed 's/^ *//' >"$work/object"
}

exactly() { # exactly KIND...: the kinds of the last rendering, each as often as it is named
  local want got
  want=$(printf '%s\n' "$@" | sort)
  got=$(sed -n 's/^kind: //p' "$work/rendered" | sort)
  [[ $want == "$got" ]] || failed "expected these kinds: ${want//$'\n'/ }; got: ${got//$'\n'/ }"
}

has() { # has KIND LINE...
  local line
  object "$1"
  for line in "${@:2}"; do
    grep -qxF -e "$line" "$work/object" || failed "$1 lacks the line: $line"
  done
}

lacks() { # lacks KIND TEXT...
  local text
  object "$1"
  for text in "${@:2}"; do
    ! grep -qF -e "$text" "$work/object" || failed "$1 must not say: $text"
  done
}

times() { # times COUNT KIND LINE
  local count
  object "$2"
  count=$(grep -cxF -e "$3" "$work/object") || true
  [[ $count == "$1" ]] || failed "$2 has $count times, not $1 times: $3"
}

# refused CASE TEXT [ARGUMENT]...: both majors refuse these values, and say TEXT.
refused() {
  local helm
  case=$1
  for helm in "$HELM" "$HELM3"; do
    if template "$helm" "${@:3}" >"$work/rendered" 2>"$work/error"; then
      failed "$helm accepts it"
    elif ! grep -qF -e "$2" "$work/error"; then
      failed "$helm does not say \"$2\": $(cat "$work/error")"
    fi
  done
}

policies=(ValidatingAdmissionPolicy{,,,} ValidatingAdmissionPolicyBinding{,,,})
always=(MutatingWebhookConfiguration ValidatingWebhookConfiguration "${policies[@]}" ServiceAccount FlowSchema PriorityLevelConfiguration)
rbac=(ClusterRole ClusterRole ClusterRole ClusterRoleBinding Role RoleBinding)
configurations=(MutatingWebhookConfiguration ValidatingWebhookConfiguration)

cat >"$work/ca.crt" <<'PEM'
-----BEGIN CERTIFICATE-----
bm90IHJlYWxseSBvbmU=
-----END CERTIFICATE-----
PEM

for helm in "$HELM" "$HELM3"; do
  case="lint with $helm"
  "$helm" lint --strict --kube-version 1.30.0 "$chart" >"$work/log" 2>&1 || failed "$(cat "$work/log")"
done

render 'defaults'
exactly "${always[@]}" "${rbac[@]}" Service Deployment PodDisruptionBudget
has MutatingWebhookConfiguration 'name: modelguard' '- name: revision.modelguard.dev' 'failurePolicy: Ignore' \
  'reinvocationPolicy: IfNeeded' 'path: /mutate' 'port: 443' 'namespace: "guard"'
lacks MutatingWebhookConfiguration matchConditions: 'modelguard.dev/guard'
has ValidatingWebhookConfiguration 'name: modelguard' '- name: catalog.modelguard.dev' '- name: workload.modelguard.dev' \
  '- name: scale.modelguard.dev' '- name: namespace.modelguard.dev'
times 4 ValidatingWebhookConfiguration 'failurePolicy: Fail'
times 4 ValidatingWebhookConfiguration 'path: /validate'
times 3 ValidatingWebhookConfiguration '- key: modelguard.dev/guard'
for kind in "${configurations[@]}"; do
  object "$kind"
  entries=$(grep -c '^- name: .*[.]modelguard[.]dev$' "$work/object")
  for line in 'sideEffects: NoneOnDryRun' 'timeoutSeconds: 5' 'matchPolicy: Equivalent' 'admissionReviewVersions: [v1]' \
    'operator: NotIn' '- guard' '- kube-system' '- kube-public' '- kube-node-lease'; do
    times "$entries" "$kind" "$line"
  done
  # An empty value would differ from what the API server stores, on every comparison.
  lacks "$kind" caBundle url:
done
has Service 'type: ClusterIP' 'targetPort: webhook' 'port: 443'
has Deployment 'replicas: 3' 'image: "modelguard:0.1.0"' '- serve' '- --listen=[::]:10250' '- --admin-listen=[::]:9090' \
  '- --tls-dir=/etc/modelguard/tls' '- --settle=60s' '- --while-in-use=deny' '- --require-served=false' '- --heal=false' '- --revision-history-limit=10' '- --shutdown-delay=10s' '- --log-format=json' '- --webhook-configuration=modelguard' \
  '- --lease=modelguard' '- --namespace=guard' 'secretName: "modelguard-tls"' 'maxUnavailable: 0' 'maxSurge: 1' \
  'terminationGracePeriodSeconds: 45' 'enableServiceLinks: false' 'path: /livez' 'path: /readyz' \
  'memory: 64Mi' 'memory: 512Mi' \
  'runAsNonRoot: true' 'readOnlyRootFilesystem: true' 'allowPrivilegeEscalation: false' 'drop: [ALL]' 'type: RuntimeDefault'
lacks Deployment subPath priorityClassName affinity:
# It tries for 60 s to reach the API server, and is not to be killed for that.
patience=$(awk '$1 == "startupProbe:" { on = 1 } $1 == "livenessProbe:" { on = 0 }
  on && $1 == "periodSeconds:" { period = $2 } on && $1 == "failureThreshold:" { count = $2 } END { print period * count }' "$work/object")
((patience >= 90)) || failed "a start may take $patience s"
has PodDisruptionBudget 'maxUnavailable: 1' 'unhealthyPodEvictionPolicy: AlwaysAllow'
has ClusterRole 'verbs: [get, list, watch, patch]' 'resourceNames: [modelguard]' '- apiGroups: [events.k8s.io]'
lacks ClusterRole '"*"' secrets update
times 1 ClusterRole 'verbs: [get, create, patch, delete]'
# Of what the webhook itself may: to ask for permissions, which makes nothing; and Events.
times 1 ClusterRole 'verbs: [create]'
has ClusterRole 'resources: [subjectaccessreviews]' 'verbs: [override]'
times 1 ClusterRole 'verbs: [create, patch]'
times 1 ClusterRole 'verbs: [get]'
times 1 ClusterRole 'verbs: [get, list, watch]'
has Role 'verbs: [create]' 'resourceNames: [modelguard]' 'verbs: [get, update]'
lacks Role patch
has ValidatingAdmissionPolicy 'name: modelguard' 'name: modelguard-bindings' 'name: modelguard-revisions' 'name: modelguard-history' \
  "request.userInfo.username == 'system:serviceaccount:guard:modelguard'"
times 4 ValidatingAdmissionPolicy 'failurePolicy: Fail'
# Only the one of Bindings leaves namespaces out.
times 1 ValidatingAdmissionPolicy '- key: modelguard.dev/guard'
times 1 ValidatingAdmissionPolicy '- kube-system'
has ValidatingAdmissionPolicyBinding 'policyName: modelguard' 'policyName: modelguard-bindings' \
  'policyName: modelguard-revisions' 'policyName: modelguard-history'
times 4 ValidatingAdmissionPolicyBinding 'validationActions: [Deny]'

render 'one replica' --set replicaCount=1
exactly "${always[@]}" "${rbac[@]}" Service Deployment

render 'a webhook behind an external name' --set service.externalName=localhost,service.port=8443
exactly "${always[@]}" "${rbac[@]}" Service
has Service 'type: ExternalName' 'externalName: "localhost"' 'port: 8443'
lacks Service selector targetPort
times 4 ValidatingWebhookConfiguration 'port: 8443'

render 'a webhook behind a URL' --set webhooks.url=https://localhost:8443/base/
exactly "${always[@]}" "${rbac[@]}"
has MutatingWebhookConfiguration 'url: "https://localhost:8443/base/mutate"'
times 4 ValidatingWebhookConfiguration 'url: "https://localhost:8443/base/validate"'
for kind in "${configurations[@]}"; do lacks "$kind" 'service:'; done

render 'a CA bundle' --set-file "certificates.caBundle=$work/ca.crt" --set certificates.secretName=mine
times 1 MutatingWebhookConfiguration "caBundle: $(base64 <"$work/ca.crt" | tr -d '\n')"
times 4 ValidatingWebhookConfiguration "caBundle: $(base64 <"$work/ca.crt" | tr -d '\n')"
has Deployment 'secretName: "mine"'

render 'more namespaces' --set 'webhooks.excludeNamespaces={team-a,kube-system}' --set webhooks.annotations.a=b
times 1 MutatingWebhookConfiguration '- team-a'
times 1 ValidatingAdmissionPolicy '- team-a'
times 4 ValidatingWebhookConfiguration '- team-a'
times 4 ValidatingWebhookConfiguration '- kube-system'
for kind in "${configurations[@]}"; do has "$kind" 'a: b'; done

render 'an identity of its own' --set serviceAccount.name=sa,serviceAccount.annotations.a=b
object ValidatingWebhookConfiguration
grep -qF "'system:serviceaccount:guard:sa'" "$work/object" || failed 'the matchCondition names another identity'
object ValidatingAdmissionPolicy
grep -qF "'system:serviceaccount:guard:sa'" "$work/object" || failed 'the policy names another identity'
has FlowSchema 'name: "sa"'
has ClusterRoleBinding '- kind: ServiceAccount' 'name: "sa"'
has ServiceAccount 'a: b'

render 'an identity that exists' --set serviceAccount.create=false,serviceAccount.name=sa,rbac.create=false
exactly MutatingWebhookConfiguration ValidatingWebhookConfiguration "${policies[@]}" FlowSchema PriorityLevelConfiguration \
  Service Deployment PodDisruptionBudget
has Deployment 'serviceAccountName: "sa"'

digest=sha256:$(printf '%064d' 0)
render 'an image by digest' --set "image.repository=example.org:5000/a/b,image.tag=v1,image.digest=$digest"
has Deployment "image: \"example.org:5000/a/b:v1@$digest\""

cat >"$work/all.yaml" <<'YAML'
imagePullSecrets: [{name: pull}]
settle: 1m30s
whileInUse: Audit
rollbackTargets: Hold
requireServed: true
heal: true
revisionHistoryLimit: 3
logFormat: text
shutdownDelay: 30s
logLevel: info,modelguard=debug
resources: {requests: {cpu: 1}}
nodeSelector: {disk: ssd}
tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector: {matchLabels: {app.kubernetes.io/name: modelguard}}
priorityClassName: system-cluster-critical
commonLabels: {team: ml, app.kubernetes.io/name: other}
podAnnotations: {note: "1"}
podLabels: {pod: "yes", app.kubernetes.io/instance: other}
extraArgs: ["--listen=0.0.0.0:10250"]
extraEnv: [{name: MORE, value: "1"}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
YAML
render 'everything else' --values "$work/all.yaml"
has Deployment '- name: pull' '- --settle=1m30s' '- --while-in-use=audit' '- --rollback-targets=hold' '- --require-served=true' '- --heal=true' '- --revision-history-limit=3' '- --log-format=text' '- --shutdown-delay=30s' 'value: "info,modelguard=debug"' 'cpu: 1' 'disk: ssd' \
  'kubernetes.io/os: linux' 'key: gpu' 'podAntiAffinity:' 'priorityClassName: "system-cluster-critical"' 'note: "1"' \
  'pod: "yes"' '- --listen=0.0.0.0:10250' '- name: MORE' '- name: NODE'
# The last of a repeated flag wins.
[[ $(grep -e '- --listen=' "$work/object" | tail -n 1) == '- --listen=0.0.0.0:10250' ]] || failed 'extraArgs do not override'
times "$(grep -c '^kind: ' "$work/rendered")" '.*' 'helm.sh/chart: modelguard-0.1.0'
mapfile -t kinds < <(sed -n "s/^kind: //p" "$work/rendered")
for kind in "${kinds[@]}"; do
  has "$kind" 'team: ml' 'app.kubernetes.io/name: modelguard'
  # A label of the user's neither replaces one of ours nor stands beside it.
  lacks "$kind" ': other'
done

release=team-a namespace=7 render 'a release of another name, in a namespace that YAML takes for a number'
has ValidatingWebhookConfiguration 'name: team-a-modelguard' 'namespace: "7"' '- "7"'
has Deployment 'name: team-a-modelguard' '- --lease=team-a-modelguard' 'namespace: "7"'
release=my.modelguard render 'a release name with a dot, which a Service may not have'
has Service 'name: my-modelguard'
release=a123456789-123456789-123456789-123456789-123456789-12 render 'the longest release name'
has Service 'name: a123456789-123456789-123456789-123456789-123456789-12-modelguar'

# Helm adds `global` to a dependency's values, which a closed schema must allow.
mkdir -p "$work/parent/charts"
cp -R "$chart" "$work/parent/charts/modelguard"
printf 'apiVersion: v2\nname: parent\nversion: 1.0.0\n' >"$work/parent/Chart.yaml"
printf 'global: {a: b}\n' >"$work/parent/values.yaml"
for helm in "$HELM" "$HELM3"; do
  case="as a dependency, with $helm"
  "$helm" template modelguard "$work/parent" --namespace guard --kube-version 1.30.0 >"$work/rendered" 2>"$work/error" || failed "$(cat "$work/error")"
  has Deployment 'replicas: 3'
  case="as a package, with $helm"
  "$helm" package "$chart" --destination "$work" >"$work/log" 2>&1 || failed "$(cat "$work/log")"
  ! tar -tzf "$work/modelguard-0.1.0.tgz" | grep -F /tests/ || failed 'the package holds the tests'
done

refused 'a misspelt value' replicaCounts --set replicaCounts=3
for misspelt in image.tags service.ports webhooks.urls webhooks.excludedNamespaces certificates.secret serviceAccount.names \
  rbac.enabled resources.request affinity.podAffinities; do
  refused "a misspelt $misspelt" "${misspelt##*.}" --set "$misspelt=x"
done
refused 'an unknown pull policy' pullPolicy --set image.pullPolicy=Sometimes
refused 'a digest that is none' digest --set image.digest=sha256:0
refused 'no replicas' replicaCount --set replicaCount=0
refused 'a duration without a unit' settle --set settle=60
refused 'no settling at all' settle --set settle=0s
refused 'an unknown strictness' whileInUse --set whileInUse=Enforce
refused 'an unknown treatment' rollbackTargets --set rollbackTargets=Keep
refused 'a word for yes' requireServed --set requireServed=on
refused 'another word for yes' heal --set heal=yes
refused 'no history' revisionHistoryLimit --set revisionHistoryLimit=0
refused 'an unknown log format' logFormat --set logFormat=xml
refused 'a delay that leaves no time to drain' shutdownDelay --set shutdownDelay=31s
refused 'a URL without TLS' url --set webhooks.url=http://localhost
refused 'a URL with a query' url --set 'webhooks.url=https://localhost/?a=b'
refused 'two places to call' 'not both' --set webhooks.url=https://localhost,service.externalName=localhost
refused 'an account of no name' 'serviceAccount.name must be set' --set serviceAccount.create=false
refused 'a name that would end the CEL string' 'serviceAccount' --set "serviceAccount.name=a' || true || 'a"
refused 'no image settings' image --set image=null
refused 'a CA bundle that is none' caBundle --set certificates.caBundle=ca.crt
begin() { printf -- '-----BEGIN %s-----' "$1"; }
refused 'a private key for a CA bundle' caBundle \
  --set "certificates.caBundle=$(begin CERTIFICATE) $(begin 'EC PRIVATE KEY')"
refused 'a variable that the chart sets' extraEnv --set 'extraEnv[0].name=RUST_LOG'
refused 'a Kubernetes without matchConditions' 'kubeVersion' --kube-version 1.29.9

render 'the version of a managed cluster' --kube-version 1.33.4-eks-abcdef
exactly "${always[@]}" "${rbac[@]}" Service Deployment PodDisruptionBudget

if ((failures)); then
  printf '%s checks failed\n' "$failures" >&2
  exit 1
fi
echo 'chart_test.sh: all checks passed'
