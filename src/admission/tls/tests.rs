//! What is in the folder, and what is said of it. Reloading is tested on a real server, in `tests/admission.rs`.

use super::*;
use rcgen::{CertificateParams, CertifiedKey as Issued, KeyPair, date_time_ymd, generate_simple_self_signed};
use std::fs;
use tempfile::TempDir;

fn folder(certificate: &str, key: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(CERTIFICATE), certificate).unwrap();
    fs::write(dir.path().join(KEY), key).unwrap();
    dir
}

fn issue() -> Issued<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// The error with all its causes, the folder's name left out.
async fn complaint(dir: &Path) -> String {
    let error = Pair::load(dir).await.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.replace(&format!("{}/", dir.display()), "")
}

#[tokio::test]
async fn a_chain_with_its_key_is_served() {
    let (leaf, other) = (issue(), issue());
    let chain = format!("{}{}", leaf.cert.pem(), other.cert.pem());
    let dir = folder(&chain, &leaf.signing_key.serialize_pem());
    let pair = Pair::load(dir.path()).await.unwrap();
    assert_eq!(pair.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[tokio::test]
async fn a_key_in_sec1_form_is_read() {
    let leaf = issue();
    // A PKCS #8 key of an elliptic curve is a SEC 1 key in an OCTET STRING, after version and algorithm.
    let pkcs8 = leaf.signing_key.serialize_der();
    let (content, _) = der(&pkcs8, 0x30).unwrap();
    let (_, rest) = der(content, 0x02).unwrap();
    let (_, rest) = der(rest, 0x30).unwrap();
    let (sec1, _) = der(rest, 0x04).unwrap();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sec1);
    let key = pem("EC PRIVATE KEY", &base64);
    Pair::load(folder(&leaf.cert.pem(), &key).path()).await.unwrap();
}

/// As `label` is framed in a file.
fn pem(label: &str, base64: &str) -> String {
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

#[tokio::test]
async fn expiry_is_read_in_both_forms_of_time() {
    // From 2050 on a year has four digits, and the time another type.
    for (year, expected) in [(2049, "2049-07-01T00:00:00Z"), (2050, "2050-07-01T00:00:00Z")] {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 7, 1);
        let key = KeyPair::generate().unwrap();
        let dir = folder(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem());
        let pair = Pair::load(dir.path()).await.unwrap();
        assert_eq!(pair.expires.to_string(), expected);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_served_all_the_same() {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(1999, 12, 31);
    let key = KeyPair::generate().unwrap();
    let dir = folder(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem());
    assert_eq!(Pair::load(dir.path()).await.unwrap().expires.to_string(), "1999-12-31T00:00:00Z");
}

#[tokio::test]
async fn what_cannot_be_served_is_named() {
    let (leaf, other) = (issue(), issue());
    let (certificate, key) = (leaf.cert.pem(), leaf.signing_key.serialize_pem());
    let expects_chain = "\"tls.crt\": expected certificates in PEM, the server's own first";
    let expects_key = "\"tls.key\": expected one private key in PEM: PKCS #8, SEC 1 or RSA, not encrypted";
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases = [
        ("", &*key, expects_chain),
        (&*key, &*key, expects_chain),
        (garbage, &*key, expects_chain),
        (&*pem("CERTIFICATE", "!"), &*key, expects_chain),
        (&*certificate, "", expects_key),
        (&*certificate, &*certificate, expects_key),
        (&*certificate, &*pem("PRIVATE KEY", "AAAA"), expects_key),
        (&*other.cert.pem(), &*key, "the key in \"tls.key\" does not belong to the first certificate in \"tls.crt\""),
    ];
    for (certificate, key, expected) in cases {
        let said = complaint(folder(certificate, key).path()).await;
        assert!(said.starts_with(expected), "{said}");
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let dir = TempDir::new().unwrap();
    assert_eq!(complaint(dir.path()).await, "cannot read \"tls.crt\": No such file or directory (os error 2)");
    fs::write(dir.path().join(CERTIFICATE), issue().cert.pem()).unwrap();
    assert_eq!(complaint(dir.path()).await, "cannot read \"tls.key\": No such file or directory (os error 2)");
}
