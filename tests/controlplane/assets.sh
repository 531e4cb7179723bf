#!/usr/bin/env bash
# Prints the folder that holds the real servers and tools the tests run, and
# builds what is missing first (progress goes to stderr).
#
# Each folder beside this script is a Go module that pins one of them, or a few
# that resolve together, with `tool` lines; none holds code of ours. The result
# is kept outside the checkout, under a name made of what decides it; so is each
# binary, and one whose module did not change is not built again. With
# KUBEBUILDER_ASSETS set, that folder is used and nothing is built.
set -euo pipefail

readonly assets=(
  etcd kube-apiserver kube-controller-manager kube-scheduler kubectl
  kwok kwok-stages.yaml helm helm3 promtool
  rollouts-controller rollouts-crds.yaml
)

say() { printf 'assets.sh: %s\n' "$*" >&2; }
fail() { say "$@"; exit 2; }

# The assets that the folder $1 lacks, on one line.
missing() {
  local asset absent=()
  for asset in "${assets[@]}"; do
    [[ -s $1/$asset && ( $asset == *.yaml || -x $1/$asset ) ]] || absent+=("$asset")
  done
  echo "${absent[*]}"
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  lacking=$(missing "$KUBEBUILDER_ASSETS")
  [[ -z $lacking ]] || fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks: $lacking"
  echo "$KUBEBUILDER_ASSETS"
  exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")"

# The committed go.sum is what counts, whatever the caller's settings.
export CGO_ENABLED=0 GOWORK=off GOFLAGS='-mod=readonly -trimpath -buildvcs=false'

read -r needed newest < <(awk '/^go / { split(FILENAME, path, "/"); print $2, path[2] }' ./*/go.mod | sort -V | tail -n 1)
# Asked inside a module, a Go that may fetch a newer toolchain answers for that one.
have=$(cd "$newest" && go env GOVERSION 2>/dev/null) || have=
printf '%s\n' "$needed" "${have#go}" | sort -VC ||
  fail "needs Go $needed or newer (found: ${have:-none}), or KUBEBUILDER_ASSETS naming a folder with: ${assets[*]}"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/modelguard/controlplane
key=$(cat ./*/go.mod ./*/go.sum <(cd "$newest" && go version) | sha256sum | cut -d ' ' -f 1)
folder=$cache/$key
answer_if_made() { [[ -n $(missing "$folder") ]] || { echo "$folder"; exit; }; }
answer_if_made

# One builder at a time; whoever waited finds the folder made.
mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock -n "$lock" || { say 'waiting for another build'; flock "$lock"; }
answer_if_made

# With the lock held, a scratch folder that is there was left by a killed build.
rm -rf "$cache"/building.*
scratch=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# version FOLDER MODULE: the version of MODULE that the go.mod in FOLDER chose.
version() { (cd "$1" && go list -m -f '{{.Version}}' "$2"); }

# build FOLDER NAME PACKAGE [LINKER FLAG]...
build() {
  local start=$SECONDS built
  built=$(cat "$1"/go.{mod,sum} <(cd "$1" && go version && echo "$GOFLAGS $*") | sha256sum | cut -d ' ' -f 1)
  built=$cache/built/$2-$built
  if [[ ! -x $built ]]; then
    (cd "$1" && go build -ldflags "-s -w ${*:4}" -o "$scratch/$2" "$3") >&2
    say "$2 built in $((SECONDS - start)) s"
    mkdir -p "$cache/built"
    mv "$scratch/$2" "$built"
  fi
  ln "$built" "$scratch/$2"
}

say "building into $folder; from nothing this takes twenty minutes on two cores"

# What a release build stamps. Unstamped, Kubernetes' programs call themselves
# v0.0.0-master, and Helm 3 renders charts for Kubernetes 1.20.
kubernetes=$(version kubernetes k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${kubernetes#v}"
server=() helm3=()
for package in k8s.io/{component-base,client-go/pkg}/version; do
  server+=("-X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor")
done
for package in helm.sh/helm/v3/pkg/{chartutil,lint/rules}; do
  helm3+=("-X $package.k8sVersionMajor=$major -X $package.k8sVersionMinor=$minor")
done

build kubernetes etcd go.etcd.io/etcd/server/v3
for name in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
  build kubernetes "$name" "k8s.io/kubernetes/cmd/$name" "${server[@]}"
done
build kwok kwok sigs.k8s.io/kwok/cmd/kwok
build helm helm helm.sh/helm/v4/cmd/helm \
  "-X helm.sh/helm/v4/internal/version.version=$(version helm helm.sh/helm/v4)"
build helm3 helm3 helm.sh/helm/v3/cmd/helm \
  "-X helm.sh/helm/v3/internal/version.version=$(version helm3 helm.sh/helm/v3)" "${helm3[@]}"
# Plugins of service discovery come with the clients of every cloud.
GOFLAGS="$GOFLAGS -tags=remove_all_sd" build promtool promtool github.com/prometheus/prometheus/cmd/promtool
build rollouts rollouts-controller github.com/argoproj/argo-rollouts/cmd/rollouts-controller

# sources FOLDER MODULE: where the files of that version of MODULE are; not there yet if what is built of it was kept.
sources() { (cd "$1" && go mod download "$2" && go list -m -f '{{.Dir}}' "$2"); }

# documents FILE...: all of them in one.
documents() {
  local file
  for file in "$@"; do
    echo ---
    cat "$file"
  done
}

# kwok does nothing without stages; these ones come with it, as separate files. So do the kinds of Argo Rollouts.
stages=$(sources kwok sigs.k8s.io/kwok)/kustomize/stage
documents "$stages"/node/{fast,heartbeat-with-lease}/node-*.yaml "$stages"/pod/fast/pod-*.yaml >"$scratch/kwok-stages.yaml"
documents "$(sources rollouts github.com/argoproj/argo-rollouts)"/manifests/crds/*-crd.yaml >"$scratch/rollouts-crds.yaml"

rm -rf "$folder"
mv "$scratch" "$folder"
echo "$folder"
