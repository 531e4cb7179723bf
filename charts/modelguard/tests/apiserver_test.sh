#!/usr/bin/env bash
# Installs the chart into a real API server, with both majors of Helm, and sees which requests are sent to the webhook:
# nothing listens where the configurations point, so that a request that is sent fails and one that is not passes.
# KUBEBUILDER_ASSETS names the folder with etcd, kube-apiserver, kubectl, helm (4), helm3 and the kinds of Argo Rollouts;
# all of it stays on loopback.
set -euo pipefail

: "${KUBEBUILDER_ASSETS:?names the folder with etcd, kube-apiserver, kubectl, helm, helm3 and rollouts-crds.yaml}"
chart=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data HELM_NO_PLUGINS=1

# --- The control plane: etcd and kube-apiserver, stopped by their ids, in that order's reverse.
etcd_pid='' apiserver_pid=''
stop() {
  local pid
  for pid in $apiserver_pid $etcd_pid; do
    kill "$pid" 2>/dev/null || continue
    for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap stop EXIT

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# until_ok WHAT SECONDS COMMAND...
until_ok() {
  local end=$((SECONDS + $2))
  until "${@:3}" >"$work/until" 2>&1; do
    ((SECONDS < end)) || { printf 'apiserver_test.sh: %s: not within %s s: %s\n' "$1" "$2" "$(tail -n 3 "$work/until")" >&2; exit 1; }
    sleep 0.2
  done
}

start() {
  local store peer port
  store=http://127.0.0.1:$(free_port) peer=http://127.0.0.1:$(free_port) port=$(free_port)
  "$KUBEBUILDER_ASSETS/etcd" --data-dir "$work/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "$store" --advertise-client-urls "$store" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$work/etcd.log" 2>&1 &
  etcd_pid=$!
  openssl ecparam -name prime256v1 -genkey -noout -out "$work/sa.key" 2>/dev/null
  printf 'admin-token,admin,admin,"system:masters"\n' >"$work/tokens"
  "$KUBEBUILDER_ASSETS/kube-apiserver" --etcd-servers "$store" --bind-address 127.0.0.1 --secure-port "$port" \
    --cert-dir "$work/apiserver" --token-auth-file "$work/tokens" --authorization-mode RBAC \
    --service-cluster-ip-range 10.0.0.0/24 --disable-admission-plugins ServiceAccount \
    --service-account-issuer https://localhost --service-account-key-file "$work/sa.key" \
    --service-account-signing-key-file "$work/sa.key" >"$work/apiserver.log" 2>&1 &
  apiserver_pid=$!
  export KUBECONFIG=$work/kubeconfig
  cat >"$KUBECONFIG" <<YAML
{apiVersion: v1, kind: Config, current-context: test, contexts: [{name: test, context: {cluster: test, user: admin}}],
 clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", certificate-authority: "$work/apiserver/apiserver.crt"}}],
 users: [{name: admin, user: {token: admin-token}}]}
YAML
  # The roles of kube-controller-manager's controllers are among what the API server makes at its first start.
  until_ok 'the API server is ready' 60 kubectl get --raw /readyz
}

kubectl() { "$KUBEBUILDER_ASSETS/kubectl" "$@"; }
helm() { "$KUBEBUILDER_ASSETS/helm" "$@"; }
helm3() { "$KUBEBUILDER_ASSETS/helm3" "$@"; }

# --- Checks.
failures=0
failed() {
  failures=$((failures + 1))
  printf 'FAIL %s\n' "$*" >&2
}

# passes CASE COMMAND...
passes() {
  "${@:2}" >"$work/out" 2>&1 </dev/null || failed "$1: $(tail -n 3 "$work/out")"
}

# fails CASE TEXT COMMAND...
fails() {
  if "${@:3}" >"$work/out" 2>&1 </dev/null; then
    failed "$1: passed"
  elif ! grep -qF -e "$2" "$work/out"; then
    failed "$1: expected \"$2\": $(tail -n 3 "$work/out")"
  fi
}

# sent CASE ENTRY COMMAND...: the API server calls that entry.
sent() { fails "$1" "failed calling webhook \"$2.modelguard.dev\"" "${@:3}"; }

# A dry run passes the same admission, and leaves the objects as the next case expects them.
ask() { kubectl --dry-run=server -n "${namespace:-prod}" "$@"; }
# by USER ...: with every right, so that only admission can refuse.
by() { ask --as "$1" --as-group system:masters "${@:2}"; }
controller() { by "system:serviceaccount:kube-system:$1" "${@:2}"; }
# own ...: with a token of the chart's ServiceAccount, and so the rights that the chart gives.
own() { kubectl -n "${namespace:-prod}" --user own "$@"; }

# metadata FIELD KEY VALUE: a merge patch.
metadata() { printf '{"metadata":{"%s":{"%s":%s}}}' "$@"; }
note=$(metadata annotations note '"x"')
readonly note new_image='[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"other"}]'

# --- Objects. They are made before the webhook is there.
readonly containers='containers: [{name: app, image: app}]'
readonly template="template: {metadata: {labels: {app: app}}, spec: {$containers}}"
readonly job="template: {spec: {restartPolicy: Never, $containers}}"
declare -rA api=(
  [Deployment]=apps/v1 [StatefulSet]=apps/v1 [DaemonSet]=apps/v1 [ReplicaSet]=apps/v1
  [Job]=batch/v1 [CronJob]=batch/v1 [ReplicationController]=v1 [Pod]=v1 [Rollout]=argoproj.io/v1alpha1
)
declare -rA spec=(
  [Deployment]="selector: {matchLabels: {app: app}}, $template"
  [StatefulSet]="selector: {matchLabels: {app: app}}, serviceName: app, $template"
  [DaemonSet]="selector: {matchLabels: {app: app}}, $template"
  [ReplicaSet]="selector: {matchLabels: {app: app}}, $template"
  [Job]="$job"
  [CronJob]="schedule: '@daily', jobTemplate: {spec: {$job}}"
  [ReplicationController]="selector: {app: app}, $template"
  [Rollout]="selector: {matchLabels: {app: app}}, $template, strategy: {canary: {}}"
  [Pod]="$containers"
)
# A change of each one's spec that its strategy allows.
declare -rA change=(
  [Deployment]=$new_image [StatefulSet]=$new_image [DaemonSet]=$new_image [ReplicaSet]=$new_image
  [ReplicationController]=$new_image [Rollout]=$new_image
  [Job]='[{"op":"add","path":"/spec/suspend","value":true}]'
  [CronJob]='[{"op":"add","path":"/spec/suspend","value":true}]'
  [Pod]='[{"op":"replace","path":"/spec/containers/0/image","value":"other"}]'
)

prepare() {
  local name kind
  for name in guard prod plain excluded; do kubectl create namespace "$name"; done
  for name in guard prod excluded; do kubectl label namespace "$name" modelguard.dev/guard=enabled; done
  kubectl label namespace guard pod-security.kubernetes.io/{enforce,warn}=restricted
  kubectl create -f "$KUBEBUILDER_ASSETS/rollouts-crds.yaml"
  # It fails at once where there is no condition yet.
  until_ok 'Rollouts are served' 30 kubectl wait --for=condition=Established crd rollouts.argoproj.io --timeout 30s
  for kind in "${!api[@]}"; do
    for name in app new; do
      printf '{apiVersion: %s, kind: %s, metadata: {name: %s}, spec: {%s}}\n' "${api[$kind]}" "$kind" "$name" "${spec[$kind]}" \
        >"$work/$name-$kind.yaml"
    done
    kubectl create -n prod -f "$work/app-$kind.yaml"
  done
  for kind in Deployment StatefulSet DaemonSet; do
    sed 's/metadata: {name: app}/metadata: {name: server}/; s/template: {metadata: {/&annotations: {"modelguard.dev\/serves": "models:v1"}, /' \
      "$work/app-$kind.yaml" >"$work/server-$kind.yaml"
    kubectl create -n prod -f "$work/server-$kind.yaml"
  done
  kubectl create -n plain -f "$work/app-Pod.yaml"
  kubectl annotate pod app -n prod modelguard.dev/serves=models:v1
  printf '{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: dormant}, spec: {replicas: 0, %s}}\n' "${spec[ReplicaSet]}" >"$work/dormant.yaml"
  kubectl create -n prod -f "$work/dormant.yaml"
  for name in guard prod plain excluded kube-system; do
    kubectl create configmap models -n "$name" --from-literal v1=a
    kubectl label configmap models -n "$name" modelguard.dev/catalog=keys
  done
  kubectl create configmap ordinary -n prod --from-literal a=b
  {
    printf '{apiVersion: v1, kind: ConfigMap, metadata: {name: annotated, labels: {modelguard.dev/catalog: keys}, annotations: {modelguard.dev/hold: v1=soak, other: x}}}\n---\n'
    printf '{apiVersion: v1, kind: ConfigMap, metadata: {name: large-annotations, labels: {modelguard.dev/catalog: keys}, annotations: {a: %s}}}\n---\n' \
      "$(head -c 260000 /dev/zero | tr '\0' x)"
    printf '{apiVersion: v1, kind: ConfigMap, metadata: {name: many-annotations, labels: {modelguard.dev/catalog: keys}, annotations: {%s}}}\n' \
      "$(printf 'a%s: x, ' {1..30000})"
  } | kubectl create -n prod -f -
  head -c 900000 /dev/zero | tr '\0' x >"$work/large"
  kubectl create configmap large -n prod --from-file "$work/large"
  kubectl label configmap large -n prod modelguard.dev/catalog=keys
  printf '{apiVersion: v1, kind: ConfigMap, metadata: {name: new, labels: {modelguard.dev/catalog: keys}}}\n' >"$work/catalog.yaml"
}

# --- What the API server sends.
check_catalog() {
  local models=(patch configmap models --type merge -p) us=system:serviceaccount:guard:modelguard
  sent 'a catalog is made' catalog ask create -f "$work/catalog.yaml"
  sent 'data is changed' catalog ask "${models[@]}" '{"data":{"v2":"b"}}'
  sent 'an annotation is changed' catalog ask "${models[@]}" "$note"
  sent 'the label is taken away' catalog ask "${models[@]}" "$(metadata labels modelguard.dev/catalog null)"
  sent 'the label is given' catalog ask patch configmap ordinary --type merge -p "$(metadata labels modelguard.dev/catalog '"keys"')"
  sent 'a catalog is deleted' catalog ask delete configmap models
  sent 'a catalog is deleted with its namespace' catalog by system:serviceaccount:kube-system:namespace-controller delete configmap models
  namespace=plain sent 'a catalog in a namespace without the guard label' catalog ask "${models[@]}" "$note"
  passes 'an ordinary ConfigMap' ask patch configmap ordinary --type merge -p '{"data":{"a":"c"}}'
  for namespace in guard excluded kube-system; do
    passes "a catalog in $namespace" ask "${models[@]}" '{"data":{"v2":"b"}}'
  done
  namespace=prod

  passes 'our own annotation' own "${models[@]}" "$(metadata annotations modelguard.dev/usage '"{}"')"
  passes 'our own annotation, once more' own "${models[@]}" "$(metadata annotations modelguard.dev/usage null)"
  passes 'our own annotation on a large catalog' own patch configmap large --type merge -p "$(metadata annotations modelguard.dev/usage '"{}"')"
  sent 'our own change of data' catalog own "${models[@]}" '{"data":{"v2":"b"}}'
  sent 'our own change of data with an annotation' catalog own "${models[@]}" '{"data":{"v1":"b"},"metadata":{"annotations":{"note":"x"}}}'
  sent 'our own change of binaryData' catalog own "${models[@]}" '{"binaryData":{"b":"AAAA"}}'
  sent 'our own change of immutable' catalog own "${models[@]}" '{"immutable":true}'
  sent 'our own change of a label' catalog own "${models[@]}" "$(metadata labels team '"x"')"
  sent 'our own change of format' catalog own "${models[@]}" "$(metadata labels modelguard.dev/catalog '"yaml"')"
  sent 'our own removal of the label' catalog own "${models[@]}" "$(metadata labels modelguard.dev/catalog null)"
  sent 'a catalog made by us' catalog by "$us" create -f "$work/catalog.yaml"
  sent 'a catalog deleted by us' catalog by "$us" delete configmap models
  sent 'the same name in another namespace' catalog by system:serviceaccount:prod:modelguard "${models[@]}" "$note"
}

# What the policies let the webhook itself, and Bindings, change.
check_policies() {
  local key value models=(patch configmap models --type merge -p) us=system:serviceaccount:guard:modelguard
  passes 'the token is for our identity' kubectl --user own auth whoami
  grep -qF "$us" "$work/out" || failed "the token is for another identity: $(cat "$work/out")"

  refuses 'our own change of data' 'data only where entries are retained' own "${models[@]}" '{"data":{"v2":"b"}}'
  refuses 'our own change of data with an annotation' 'data only where entries are retained' \
    own "${models[@]}" '{"data":{"v1":"b"},"metadata":{"annotations":{"modelguard.dev/usage":"{}"}}}'
  refuses 'our own removal of data' 'data only where entries are retained' own "${models[@]}" '{"data":null}'
  refuses 'our own change of binaryData' 'data only where entries are retained' own "${models[@]}" '{"binaryData":{"b":"AAAA"}}'
  refuses 'our own change of immutable' 'annotations only' own "${models[@]}" '{"immutable":true}'
  refuses 'our own change of a label' 'annotations only' own "${models[@]}" "$(metadata labels team '"x"')"
  refuses 'our own removal of the label' 'model ConfigMaps only' own "${models[@]}" "$(metadata labels modelguard.dev/catalog null)"
  refuses 'our own finalizer' 'annotations only' own "${models[@]}" '{"metadata":{"finalizers":["example.org/x"]}}'
  refuses 'our own owner' 'annotations only' own "${models[@]}" \
    '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"ordinary","uid":"1"}]}}'
  for key in note modelguard.dev/hold modelguard.dev/shared-with modelguard.dev/break-glass modelguard.dev/retire; do
    refuses "our own change of $key" 'its own annotations only' own "${models[@]}" "$(metadata annotations "$key" '"x"')"
  done
  refuses 'an ordinary ConfigMap' 'model ConfigMaps only' \
    own patch configmap ordinary --type merge -p "$(metadata annotations modelguard.dev/usage '"{}"')"
  refuses 'an ordinary ConfigMap that becomes a catalog' 'model ConfigMaps only' \
    own patch configmap ordinary --type merge -p "$(metadata labels modelguard.dev/catalog '"keys"')"
  for namespace in guard excluded kube-system; do
    refuses "our own change of data in $namespace" 'data only where entries are retained' own "${models[@]}" '{"data":{"v2":"b"}}'
  done
  namespace=prod

  for key in usage revision prior-revision retained; do
    for value in '"a"' '"b"' null; do
      passes "our own $key becomes $value" own patch configmap annotated --type merge -p "$(metadata annotations "modelguard.dev/$key" "$value")"
    done
  done
  # What is retained goes inside a write of ours; the webhook itself looks whether nothing else does.
  passes 'our own mark that an entry is retained' \
    own patch configmap annotated --type merge -p "$(metadata annotations modelguard.dev/retained '"[\"v2\"]"')"
  passes 'our own change of data where an entry is retained' own patch configmap annotated --type merge -p '{"data":{"v2":null}}'
  passes 'our own mark, taken away' own patch configmap annotated --type merge -p "$(metadata annotations modelguard.dev/retained null)"
  refuses 'our own change of an annotation' 'its own annotations only' \
    own patch configmap annotated --type merge -p "$(metadata annotations modelguard.dev/hold '"v2=soak"')"
  refuses 'our own removal of an annotation' 'its own annotations only' \
    own patch configmap annotated --type merge -p "$(metadata annotations other null)"
  refuses 'our own removal of all annotations' 'its own annotations only' \
    own patch configmap annotated --type merge -p '{"metadata":{"annotations":null}}'
  # As long as they can be, and as many: a policy has a budget.
  for key in large many; do
    passes "our own annotation on a ConfigMap with $key annotations" \
      own patch configmap "$key-annotations" --type merge -p "$(metadata annotations modelguard.dev/usage '"{}"')"
  done

  for value in pods/app/binding bindings; do
    for key in uses serves break-glass; do
      refuses "a Binding by $value brings $key" 'a Binding may not bring' bind "$value" "modelguard.dev/$key"
    done
    namespace=plain passes "a Binding by $value where nothing is guarded" bind "$value" modelguard.dev/uses
    namespace=prod passes "a Binding by $value brings something else" bind "$value" example.org/uses
  done
}

# What our own identity may write of ControllerRevisions: those that keep revisions of model ConfigMaps.
check_revisions() {
  local name
  for name in ours theirs; do
    printf '{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"name":"%s","namespace":"prod"},"revision":1,"data":{}}' \
      "$name" >"$work/$name.json"
  done
  sed -i 's/"name":"ours"/&,"labels":{"modelguard.dev\/history-of":"models"}/' "$work/ours.json"
  passes 'somebody makes a ControllerRevision' kubectl create -f "$work/theirs.json"
  passes 'we keep a revision' own create -f "$work/ours.json"
  refuses 'somebody changes a revision' 'written by modelguard alone' ask patch controllerrevision ours --type merge -p "$note"
  refuses 'somebody gives another one our label' 'written by modelguard alone' \
    ask patch controllerrevision theirs --type merge -p "$(metadata labels modelguard.dev/history-of '"models"')"
  passes 'we mark a revision' own patch controllerrevision ours --type merge -p "$(metadata annotations note '"x"')"
  refuses 'we give it an owner' 'neither owners' own patch controllerrevision ours --type merge -p \
    '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"ordinary","uid":"1"}]}}'
  refuses 'we take its label' 'revisions of model ConfigMaps only' \
    own patch controllerrevision ours --type merge -p "$(metadata labels modelguard.dev/history-of null)"
  refuses 'we take over another one' 'revisions of model ConfigMaps only' \
    own patch controllerrevision theirs --type merge -p "$(metadata labels modelguard.dev/history-of '"models"')"
  refuses 'we delete another one' 'revisions of model ConfigMaps only' own delete controllerrevision theirs
  passes 'we delete a revision' own delete controllerrevision ours
  sed -i 's/theirs/more/' "$work/theirs.json"
  refuses 'we make another one' 'revisions of model ConfigMaps only' own create -f "$work/theirs.json"
  passes 'somebody deletes theirs' kubectl delete -n prod controllerrevision theirs
}

# refuses CASE TEXT COMMAND...: a policy of the chart refuses it, and says TEXT.
refuses() {
  fails "$1" "$2" "${@:3}"
  grep -qF "ValidatingAdmissionPolicy 'modelguard" "$work/out" || failed "$1: not by a policy: $(tail -n 3 "$work/out")"
}

# bind PATH ANNOTATION: binds a pod that waits for a node, in a dry run.
bind() {
  printf '{"apiVersion":"v1","kind":"Binding","metadata":{"name":"app","annotations":{"%s":"models:v2"}},"target":{"kind":"Node","name":"node"}}' "$2" >"$work/binding.json"
  kubectl create --raw "/api/v1/namespaces/$namespace/$1?dryRun=All" -f "$work/binding.json"
}

# Without the policy, what of our own writes is sent depends on the matchCondition alone.
without_policy() {
  kubectl get validatingadmissionpolicybinding modelguard -o json >"$work/policy-binding.json"
  kubectl delete validatingadmissionpolicybinding modelguard >/dev/null
  until_ok 'the policy is off' 10 own_data_is_sent
  "$@"
  passes 'the policy comes back' kubectl create -f "$work/policy-binding.json"
  until_ok 'the policy is on' 10 own_data_is_refused
}
own_data_is_sent() { ! own_data && grep -qF 'failed calling webhook "catalog.' "$work/own"; }
own_data_is_refused() { ! own_data && grep -qF "ValidatingAdmissionPolicy 'modelguard'" "$work/own"; }
own_data() { namespace=prod own patch configmap models --type merge -p '{"data":{"v2":"b"}}' >"$work/own" 2>&1; }

# The mutating entry fails open, which the API server counts.
opened() { kubectl get --raw /metrics | sed -n 's/^apiserver_admission_webhook_fail_open_count{name="revision.modelguard.dev".* //p'; }
check_revision() {
  local before
  before=$(opened)
  passes 'our own annotation again' own patch configmap models --type merge -p "$(metadata annotations modelguard.dev/usage '"{}"')"
  [[ $(opened) != "$before" ]] || failed 'our own annotation is not sent to revision.modelguard.dev'
  before=$(opened)
  passes 'an ordinary ConfigMap again' ask patch configmap ordinary --type merge -p "$note"
  [[ $(opened) == "$before" ]] || failed 'an ordinary ConfigMap is sent to revision.modelguard.dev'
}

check_workload() {
  local kind key user
  for kind in "${!api[@]}"; do
    sent "$kind is made" workload ask create -f "$work/new-$kind.yaml"
    sent "spec of a $kind is changed" workload ask patch "$kind" app --type json -p "${change[$kind]}"
    passes "$kind is labelled" ask patch "$kind" app --type merge -p "$(metadata labels note '"x"')"
    passes "$kind is annotated" ask patch "$kind" app --type merge -p "$note"
    passes "$kind gets a finalizer" ask patch "$kind" app --type merge -p '{"metadata":{"finalizers":["example.org/x"]}}'
    passes "$kind is deleted" ask delete "$kind" app
    namespace=plain passes "$kind is made where nothing is guarded" ask create -f "$work/new-$kind.yaml"
    namespace=excluded passes "$kind is made in an excluded namespace" ask create -f "$work/new-$kind.yaml"
  done
  for key in uses serves; do
    sent "a Pod's $key is changed" workload ask patch pod app --type merge -p "$(metadata annotations "modelguard.dev/$key" '"models:v2"')"
  done
  sent "a Pod's serves is taken away" workload ask patch pod app --type merge -p "$(metadata annotations modelguard.dev/serves null)"
  for key in uses serves; do
    sent "a Pod's $key is changed through its status" workload ask patch pod app --subresource status --type merge \
      -p "{\"metadata\":{\"annotations\":{\"modelguard.dev/$key\":\"models:v2\"}},\"status\":{\"message\":\"x\"}}"
  done
  sent "a Pod's serves is taken away through its status" workload ask patch pod app --subresource status --type merge \
    -p "$(metadata annotations modelguard.dev/serves null)"
  sent "a kubelet changes a Pod's uses" workload by system:node:node patch pod app --subresource status --type merge \
    -p "$(metadata annotations modelguard.dev/uses '"models:v2"')"
  # Whatever else a status write brings, from whomever: no node waits for us to report.
  for user in admin system:node:node system:kube-controller-manager system:serviceaccount:kube-system:node-controller; do
    passes "a Pod's status, by $user" by "$user" patch pod app --subresource status --type merge \
      -p '{"metadata":{"annotations":{"example.org/network":"x"},"labels":{"a":"b"}},"status":{"phase":"Failed","message":"x"}}'
  done
  for object in deployment/app statefulset/app; do
    sent "break-glass comes to $object by its status" workload ask patch "$object" --subresource status --type merge \
      -p '{"metadata":{"annotations":{"modelguard.dev/break-glass":"x"}}}'
  done
  passes "a Deployment's status" ask patch deployment app --subresource status --type merge -p '{"status":{"replicas":1}}'
  passes "a Rollout's status" ask patch rollout app --subresource status --type merge -p '{"status":{"abort":true}}'
  passes 'a Rollout is scaled' ask scale rollout app --replicas 3
  sent 'Argo Rollouts wakes a ReplicaSet' workload by system:serviceaccount:argo-rollouts:argo-rollouts \
    patch replicaset dormant --type merge -p '{"spec":{"replicas":3}}'
  sent 'an ephemeral container' workload kubectl debug app -n prod --image other --attach=false --quiet
  sent 'a ReplicaSet is woken' workload ask scale replicaset dormant --replicas 3
  passes 'a ReplicaSet is put to sleep' ask scale replicaset app --replicas 0
  passes 'a ReplicaSet is scaled up' ask scale replicaset app --replicas 3
  passes 'a ReplicaSet stays at zero' ask scale replicaset dormant --replicas 0
}

# What serves: that it is deleted, or scaled to zero. A Scale does not say whether it serves.
check_servers() {
  local kind name
  for kind in Deployment StatefulSet DaemonSet; do
    sent "a $kind that serves is deleted" workload ask delete "$kind" server
    for name in generic-garbage-collector namespace-controller; do
      passes "a $kind that serves, by $name" controller "$name" delete "$kind" server
    done
    passes "a $kind that serves, by kube-controller-manager" by system:kube-controller-manager delete "$kind" server
    passes "a $kind that serves is annotated" ask patch "$kind" server --type merge -p "$note"
  done
  for kind in Deployment StatefulSet; do
    sent "a $kind is scaled to zero" scale ask scale "$kind" server --replicas 0
    for name in system:serviceaccount:kube-system:horizontal-pod-autoscaler system:kube-controller-manager; do
      sent "a $kind is scaled to zero by $name" scale by "$name" scale "$kind" app --replicas 0
    done
    passes "a $kind is scaled" ask scale "$kind" server --replicas 3
    namespace=plain passes "a $kind is made where nothing is guarded" ask create -f "$work/server-$kind.yaml"
  done
}

check_controllers() {
  local name
  for name in replicaset-controller statefulset-controller daemon-set-controller job-controller replication-controller persistent-volume-binder; do
    passes "$name makes a Pod" controller "$name" create -f "$work/new-Pod.yaml"
  done
  passes 'kube-controller-manager makes a Pod' by system:kube-controller-manager create -f "$work/new-Pod.yaml"
  passes 'deployment-controller makes a ReplicaSet' controller deployment-controller create -f "$work/new-ReplicaSet.yaml"
  passes 'deployment-controller scales a ReplicaSet' \
    controller deployment-controller patch replicaset dormant --type merge -p '{"spec":{"replicas":3}}'
  passes 'deployment-controller annotates a Deployment' controller deployment-controller patch deployment app --type merge -p "$note"
  passes 'cronjob-controller makes a Job' controller cronjob-controller create -f "$work/new-Job.yaml"
  passes 'the garbage collector changes owners' controller generic-garbage-collector patch pod app --type merge \
    -p '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"ordinary","uid":"1"}]}}'
  for name in system:serviceaccount:kube-system:deployment-controller system:kube-controller-manager; do
    sent "$name rolls a Deployment back" workload by "$name" patch deployment app --type json -p "$new_image"
  done
  for name in system:serviceaccount:kube-system:horizontal-pod-autoscaler system:kube-controller-manager; do
    sent "$name wakes a ReplicaSet" workload by "$name" scale replicaset dormant --replicas 3
  done
  for name in system:serviceaccount:prod:replicaset-controller system:serviceaccount:kube-system:default admin; do
    sent "$name makes a Pod" workload by "$name" create -f "$work/new-Pod.yaml"
  done
}

# --- What the ServiceAccount may do, and through which priority level it goes.
can_i() { kubectl auth can-i --quiet --as system:serviceaccount:guard:modelguard "$@" >/dev/null 2>&1; }
check_rights() {
  local verb resource
  for resource in configmaps namespaces pods replicationcontrollers deployments.apps statefulsets.apps daemonsets.apps \
    replicasets.apps controllerrevisions.apps jobs.batch cronjobs.batch rollouts.argoproj.io; do
    for verb in list watch; do
      can_i "$verb" "$resource" --all-namespaces || failed "it may not $verb $resource"
    done
  done
  for resource in configmaps namespaces deployments.apps statefulsets.apps replicasets.apps controllerrevisions.apps; do
    can_i get "$resource" --all-namespaces || failed "it may not get $resource"
  done
  for resource in pods replicationcontrollers daemonsets.apps jobs.batch cronjobs.batch rollouts.argoproj.io; do
    ! can_i get "$resource" -n prod || failed "it may get $resource"
  done
  can_i patch configmaps --all-namespaces || failed 'it may not patch ConfigMaps'
  for verb in create patch delete; do
    can_i "$verb" controllerrevisions.apps --all-namespaces || failed "it may not $verb ControllerRevisions"
  done
  for resource in validatingwebhookconfigurations mutatingwebhookconfigurations; do
    passes "it lists its $resource" own get "$resource" --field-selector metadata.name=modelguard
    passes "it watches its $resource" own get "$resource" --field-selector metadata.name=modelguard --watch --request-timeout 1s
    fails "it lists all $resource" forbidden own get "$resource"
    fails "it changes its $resource" forbidden own annotate "$resource" modelguard a=b
  done
  for verb in create patch; do
    can_i "$verb" events.events.k8s.io --all-namespaces || failed "it may not $verb Events"
  done
  for verb in get list watch update delete; do
    ! can_i "$verb" events.events.k8s.io -n prod || failed "it may $verb Events"
  done
  can_i create leases.coordination.k8s.io -n guard || failed 'it may not make a Lease'
  ! can_i patch leases.coordination.k8s.io/modelguard -n guard || failed 'it may patch its Lease'
  for verb in get update; do
    can_i "$verb" leases.coordination.k8s.io/modelguard -n guard || failed "it may not $verb its Lease"
    ! can_i "$verb" leases.coordination.k8s.io/other -n guard || failed "it may $verb another Lease"
  done
  for verb in create update delete; do
    ! can_i "$verb" configmaps -n prod || failed "it may $verb ConfigMaps"
  done
  ! can_i get secrets -n guard || failed 'it may read Secrets'

  own get configmap models -v=8 >"$work/out" 2>&1
  grep -qi "X-Kubernetes-Pf-Flowschema-Uid: $(kubectl get flowschema modelguard -o 'jsonpath={.metadata.uid}')" "$work/out" ||
    failed 'its requests go by another FlowSchema'
}

# --- The chart's objects, as the API server sees them: no unknown field, nothing it warns of. The release namespace has
# it warn of what the Pod Security Standard "restricted" would refuse.
check_schema() {
  local mode
  for mode in replicaCount=2 service.externalName=localhost webhooks.url=https://localhost:1; do
    "$1" template modelguard "$chart" -n guard --kube-version 1.30.0 --set "$mode" >"$work/rendered.yaml"
    passes "$1 with $mode: strict validation" kubectl apply --dry-run=server --validate=strict -f "$work/rendered.yaml"
    ! grep -F Warning "$work/out" || failed "$1 with $mode: a warning"
  done
}

is_sent() { ! ask annotate configmap models a=b 2>"$work/sent" && grep -qF "$1" "$work/sent"; }
is_not_sent() { ask annotate configmap models a=b; }

check_life() { # check_life HELM: installed, moved twice, uninstalled
  local port
  port=$(free_port)
  passes "$1 installs" "$1" install modelguard "$chart" -n guard --set "service.externalName=localhost,service.port=$port"
  until_ok "$1: a Service of type ExternalName is called" 10 is_sent "https://modelguard.guard.svc:$port/validate"
  grep -qF "127.0.0.1:$port: connect: connection refused" "$work/sent" || failed "$1: $(cat "$work/sent")"
  passes "$1 moves it into the cluster" "$1" upgrade modelguard "$chart" -n guard --reset-values
  passes "$1: the Deployment is there" kubectl get deployment,poddisruptionbudget modelguard -n guard
  [[ $(kubectl get service modelguard -n guard -o 'jsonpath={.spec.type}{.spec.externalName}') == ClusterIP ]] ||
    failed "$1: the Service is still external"
  kubectl delete validatingwebhookconfiguration modelguard >/dev/null
  passes "$1 moves it behind a URL" "$1" upgrade modelguard "$chart" -n guard --reset-values \
    --set 'webhooks.url=https://127.0.0.1:1,webhooks.excludeNamespaces={excluded}'
  fails "$1: the Deployment is gone" NotFound kubectl get deployment modelguard -n guard
  # Also that an upgrade brings a deleted configuration back.
  until_ok "$1: the URL is called" 10 is_sent https://127.0.0.1:1/validate
}

check_namespace() {
  local label='modelguard.dev/guard' until='modelguard.dev/break-glass="2026-01-01T00:00:00Z why"'
  sent 'a guarded namespace is deleted' namespace ask delete namespace prod
  sent 'the guard label is taken away' namespace ask label namespace prod "$label-"
  sent 'the guard label gets another value' namespace ask label --overwrite namespace prod "$label=disabled"
  sent 'break-glass is set on a guarded namespace' namespace ask annotate namespace prod "$until"
  passes 'a guarded namespace is labelled' ask label namespace prod note=x
  passes 'a guarded namespace is annotated' ask annotate namespace prod note=x
  passes 'a namespace is labelled for the first time' ask label namespace plain "$label=enabled"
  passes 'a namespace that is not guarded is deleted' ask delete namespace plain
  passes 'an excluded namespace is deleted' ask delete namespace excluded
}

check_uninstall() {
  passes "$1 uninstalls" "$1" uninstall modelguard -n guard
  until_ok "$1: nothing is sent any more" 10 is_not_sent
}

start
prepare >/dev/null
check_schema helm
check_schema helm3
check_life helm
kubectl config set-credentials own --token "$(kubectl create token modelguard -n guard)" >/dev/null
check_policies
check_revisions
without_policy check_catalog
check_revision
check_workload
check_namespace
check_controllers
check_servers
check_rights
check_uninstall helm
check_life helm3
check_uninstall helm3
! kubectl get --raw /metrics | grep '^apiserver_admission_match_condition_evaluation_errors_total' || failed 'a matchCondition failed to evaluate'

if ((failures)); then
  printf '%s checks failed\n' "$failures" >&2
  exit 1
fi
echo 'apiserver_test.sh: all checks passed'
