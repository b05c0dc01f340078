//! Certificates, credential files and tokens: what is good survives, what is not is refused.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::{any, proptest};

use super::ca::ClusterAuthority;
use super::identity::{Credential, Identity};
use super::token::{JoinToken, TokenError};
use super::{CryptoError, Holder, tls};
use crate::types::id::ClusterId;
use crate::types::record::Role;

const CLUSTER: ClusterId = ClusterId([1; 16]);

const HOLDER: Holder = Holder { role: Role::Client, id: 1, reads_only: false };

fn authority() -> ClusterAuthority {
    ClusterAuthority::create(CLUSTER).unwrap()
}

#[test]
fn an_authority_signs_after_it_was_stored() {
    let made = authority();
    let read = ClusterAuthority::from_parts(made.ca_cert_der(), made.ca_key_der()).unwrap();
    assert_eq!((read.cluster(), read.fingerprint()), (CLUSTER, made.fingerprint()));
    let identity = Identity::issue(&read, Role::Store, 4).unwrap();
    assert_eq!((identity.cluster, identity.role, identity.id), (CLUSTER, Role::Store, 4));
    tls::server_config(&identity, tls::Cipher::default()).unwrap();
    tls::client_config(&identity, tls::Cipher::default()).unwrap();
}

#[test]
fn a_certificate_says_who_may_only_read() {
    for holder in [HOLDER, Holder { reads_only: true, ..HOLDER }, Holder { role: Role::Store, ..HOLDER }] {
        let identity = Identity::issue_to(&authority(), holder).unwrap();
        let chain = [identity.cert_der.into()];
        assert_eq!(tls::holder(&chain, CLUSTER).unwrap(), holder);
        assert!(tls::holder(&chain, ClusterId([2; 16])).is_err());
    }
}

#[test]
fn an_authority_needs_its_own_key() {
    let (one, other) = (authority(), authority());
    let error = ClusterAuthority::from_parts(one.ca_cert_der(), other.ca_key_der()).unwrap_err();
    assert!(matches!(error, CryptoError::Key(_)), "{error}");
}

#[test]
fn a_request_is_signed_only_if_its_own_key_signed_it() {
    let authority = authority();
    let (_, mut request) = Identity::new_key_and_csr().unwrap();
    let last = request.len() - 1;
    request[last] ^= 1;
    assert!(matches!(authority.sign(&request, HOLDER), Err(CryptoError::Request(_))));
    assert!(matches!(authority.sign(b"no request", HOLDER), Err(CryptoError::Request(_))));
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let authority = authority();
    let one = Identity::issue(&authority, Role::Meta, 1).unwrap();
    let two = Identity::issue(&authority, Role::Meta, 2).unwrap();
    let mixed = Identity::from_parts(one.cert_der.clone(), two.key_der, one.ca_der.clone());
    assert!(matches!(mixed, Err(CryptoError::Key(_))));
    // The same cluster id does not help: the signature is not that authority's.
    let imposter = ClusterAuthority::create(CLUSTER).unwrap();
    let mixed = Identity::from_parts(one.cert_der, one.key_der, imposter.ca_cert_der().to_vec());
    assert!(matches!(mixed, Err(CryptoError::WrongAuthority)));
}

#[test]
fn a_credential_file_survives_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.pem");
    let identity = Identity::issue(&authority(), Role::Client, 9).unwrap();
    let metas = vec!["10.0.0.1:7001".to_string(), "meta-2.example:7001".to_string()];
    Credential { identity: identity.clone(), metas: metas.clone() }.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = Credential::load(&path).unwrap();
    assert_eq!(read.metas, metas);
    assert_eq!(read.identity.cert_der, identity.cert_der);
    assert_eq!(read.identity.key_der, identity.key_der);
    identity.save(&path).unwrap();
    assert_eq!(Identity::load(&path).unwrap().id, 9);
    assert!(Credential::load(&path).unwrap().metas.is_empty());
}

#[test]
fn damaged_credential_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.pem");
    Identity::issue(&authority(), Role::Store, 1).unwrap().save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for cut in [0, 40, text.len() / 2, text.len() - 5] {
        std::fs::write(&path, &text[..cut]).unwrap();
        let error = Identity::load(&path).unwrap_err();
        assert!(matches!(error, CryptoError::CredentialFile { .. }), "cut at {cut}: {error}");
    }
    assert!(matches!(Identity::load(&dir.path().join("none")), Err(CryptoError::Io { .. })));
}

#[test]
fn secrets_are_not_shown() {
    let authority = authority();
    let identity = Identity::issue(&authority, Role::Admin, 1).unwrap();
    let shown = format!("{identity:?}");
    assert!(!shown.contains("key") && !shown.contains(&format!("{:?}", &identity.key_der[..4])), "{shown}");
    let token = JoinToken::create(authority.fingerprint(), vec!["a:1".into()]);
    assert!(!format!("{token:?}").contains("secret"));
    assert!(!format!("{authority:?}").contains("key"));
}

#[test]
fn tokens_survive_their_text_form() {
    let token = JoinToken::create([3; 32], vec!["127.0.0.1:7001".into(), "[::1]:7002".into()]);
    let text = token.encode();
    assert!(text.starts_with("hf1.") && text == text.to_lowercase());
    assert_eq!(text.parse(), Ok(token.clone()));
    assert_eq!(format!(" {text}\n").parse(), Ok(token));
}

#[test]
fn mistyped_tokens_are_known_at_once() {
    let text = JoinToken::create([3; 32], vec!["127.0.0.1:7001".into()]).encode();
    assert_eq!("join-me".parse::<JoinToken>(), Err(TokenError::Prefix));
    assert_eq!(format!("{text}!").parse::<JoinToken>(), Err(TokenError::Encoding));
    let other = if text.as_bytes()[20] == b'a' { 'b' } else { 'a' };
    let mistyped = format!("{}{other}{}", &text[..20], &text[21..]);
    assert_eq!(mistyped.parse::<JoinToken>(), Err(TokenError::Checksum));
    assert!(matches!("hf1.".parse::<JoinToken>(), Err(TokenError::Malformed)));
}

proptest! {
    #[test]
    fn no_text_breaks_the_token_parser(bytes in any::<Vec<u8>>()) {
        let check = crate::types::digest::fingerprint(&bytes);
        let body = [bytes.as_slice(), &check[..4]].concat();
        let text = format!("hf1.{}", data_encoding::BASE32_NOPAD.encode(&body));
        let _ = text.parse::<JoinToken>();
    }
}
