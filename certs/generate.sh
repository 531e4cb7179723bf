#!/bin/sh
# Makes the certificates of a webhook with openssl; README.md says what to do with them.
set -eu

usage() {
  cat <<'TEXT'
usage: generate.sh OUT_DIR [--service NAME] [--namespace NS] [--days N] [--dns NAME]... [--ca DIR | --keep-ca-key]

Writes ca.crt, tls.crt and tls.key to OUT_DIR: a P-256 certificate for NAME.NS.svc, localhost and 127.0.0.1.
Overwrites nothing.

  --service NAME   name of the Service (default: modelguard)
  --namespace NS   its namespace (default: modelguard)
  --days N         days that the certificates are valid (default: 365)
  --dns NAME       one more DNS name of the certificate; may be repeated
  --keep-ca-key    keep the CA's key, as ca.key, and make the CA valid ten times as long, for --ca later
                   (default: the key is deleted, so that nobody can sign with it)
  --ca DIR         sign with ca.crt and ca.key of DIR instead of making a CA
TEXT
}

fail() {
  printf 'generate.sh: %s\n' "$*" >&2
  exit 2
}

is_dns_name() {
  # Labels of at most 63 characters, 253 in all, the first possibly a wildcard; an address is none.
  [ "${#1}" -le 253 ] &&
    printf '%s\n' "$1" | grep -Eq '^(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$' &&
    printf '%s\n' "$1" | grep -q '[a-z]'
}

out='' service=modelguard namespace=modelguard days=365 dns='' keep_ca_key='' ca=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --keep-ca-key) keep_ca_key=yes; shift; continue ;;
    --service | --namespace | --days | --dns | --ca) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    -*) fail "unknown option $1; see --help" ;;
    *) [ -z "$out" ] || fail "more than one OUT_DIR: $out, $1"; out=$1; shift; continue ;;
  esac
  case $1 in
    --service) service=$2 ;;
    --namespace) namespace=$2 ;;
    --days) days=$2 ;;
    --dns) is_dns_name "$2" || fail "--dns $2 is not a DNS name"; dns="$dns $2" ;;
    --ca) ca=$2 ;;
  esac
  shift 2
done
[ -n "$out" ] || { usage >&2; exit 2; }
case $days in '' | 0* | *[!0-9]*) fail "--days $days is not a number of days" ;; esac
is_dns_name "$service.$namespace.svc" || fail "$service.$namespace.svc is not a DNS name"
[ -z "$ca" ] || [ -z "$keep_ca_key" ] || fail "--ca and --keep-ca-key exclude each other"
command -v openssl >/dev/null || fail "needs openssl"

umask 077
mkdir -p "$out"
out=$(CDPATH='' cd -- "$out" && pwd)
for file in ca.crt ca.key tls.crt tls.key; do
  [ ! -e "$out/$file" ] || fail "$out/$file exists, nothing was written"
done
# Whole before it is seen: the files are moved out of here when all of them are made.
work=$(mktemp -d "$out/.generate.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

quiet() {
  "$@" 2>"$work/log" || { cat "$work/log" >&2; fail "$1 failed"; }
}

new_key() {
  quiet openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:named_curve -out "$1"
}

# The subject of a CA is its identity while two of them are trusted: a random part keeps them apart.
if [ -z "$ca" ]; then
  cat >"$work/ca.cnf" <<CNF
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = modelguard CA $(openssl rand -hex 4)
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
CNF
  ca_days=$days
  [ -z "$keep_ca_key" ] || ca_days=$((days * 10))
  new_key "$work/ca.key"
  quiet openssl req -x509 -new -sha256 -config "$work/ca.cnf" -key "$work/ca.key" -days "$ca_days" \
    -set_serial "0x$(openssl rand -hex 16)" -out "$work/ca.crt"
else
  for file in ca.crt ca.key; do
    [ -r "$ca/$file" ] || fail "$ca/$file cannot be read"
    cat "$ca/$file" >"$work/$file"
  done
  openssl x509 -in "$work/ca.crt" -noout -checkend $((days * 86400)) >/dev/null ||
    fail "the CA in $ca expires within $days days: ask for fewer --days, or make a new one"
fi

{
  cat <<CNF
[req]
prompt = no
distinguished_name = name
[name]
CN = modelguard webhook
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = @names
[names]
IP.1 = 127.0.0.1
CNF
  number=0
  for name in "$service.$namespace.svc" localhost $dns; do
    number=$((number + 1))
    echo "DNS.$number = $name"
  done
} >"$work/tls.cnf"
new_key "$work/tls.key"
quiet openssl req -new -sha256 -config "$work/tls.cnf" -key "$work/tls.key" -out "$work/tls.csr"
quiet openssl x509 -req -sha256 -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -days "$days" \
  -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/tls.cnf" -extensions extensions -out "$work/tls.crt"
quiet openssl verify -CAfile "$work/ca.crt" -purpose sslserver -verify_hostname "$service.$namespace.svc" "$work/tls.crt" >/dev/null

chmod 0644 "$work/ca.crt" "$work/tls.crt"
[ -z "$keep_ca_key" ] || mv "$work/ca.key" "$out/ca.key"
mv "$work/ca.crt" "$work/tls.crt" "$work/tls.key" "$out/"
if [ -n "$keep_ca_key" ]; then kept=' and ca.key'; else kept=''; fi
printf '%s: ca.crt, tls.crt, tls.key%s for %s, valid for %s days\n' "$out" "$kept" "$service.$namespace.svc" "$days"
