//! The TLS settings of every connection: 1.3 only, ALPN `holdfast/1`, both sides with certificates of the cluster.
//!
//! One exception, on the server: a caller without a certificate is let through the handshake, because a new member has
//! none yet. What it may do is decided above (join, and nothing else).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::CryptoError;
use super::identity::Identity;
use super::subject::{Holder, Subject};
use crate::types::digest::fingerprint;
use crate::types::id::ClusterId;

const ALPN: &[u8] = b"holdfast/1";

/// What packets are sealed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cipher {
    /// The least work where the processor has instructions for AES (`bench/NET.md`).
    #[default]
    Aes128Gcm,
    Aes256Gcm,
    /// For peers without such instructions.
    ChaCha20Poly1305,
}

/// The server's side. Presents its certificate and the authority's: a joining member knows the latter by fingerprint.
///
/// # Errors
/// The identity is not usable for TLS.
pub fn server_config(identity: &Identity, cipher: Cipher) -> Result<ServerConfig, CryptoError> {
    let provider = provider(cipher);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&identity.ca_der)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(identity), key(identity)?)
        .map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption: connections are few and live long, and every one shows its certificate.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The side that dials, as a member.
///
/// # Errors
/// The identity is not usable for TLS.
pub fn client_config(identity: &Identity, cipher: Cipher) -> Result<ClientConfig, CryptoError> {
    let config = ClientConfig::builder_with_provider(provider(cipher))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_root_certificates(roots(&identity.ca_der)?)
        .with_client_auth_cert(chain(identity), key(identity)?)
        .map_err(failed)?;
    Ok(finish(config))
}

/// The side that dials to join: without a certificate, trusting exactly the authority whose certificate has this
/// fingerprint.
///
/// # Errors
/// TLS cannot be set up.
pub fn joining_config(ca_fingerprint: [u8; 32]) -> Result<ClientConfig, CryptoError> {
    let provider = provider(Cipher::default());
    let verifier = PinnedAuthority { ca_fingerprint, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finish(config))
}

/// For those who come with a browser or a script: a certificate that they know already, from files as others write them (PEM,
/// the server's certificate first), HTTP over TLS 1.3, and none asked of them.
///
/// # Errors
/// `Io`, or the files are not a certificate and its key.
pub fn web_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, CryptoError> {
    let unusable = |path: &Path, why: &dyn fmt::Display| CryptoError::Tls(format!("{}: {why}", path.display()));
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider(Cipher::default()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| unusable(certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Who a verified chain belongs to.
///
/// # Errors
/// `Certificate` when its leaf is not of this cluster. TLS has checked the signature; this checks what was signed.
pub fn holder(chain: &[CertificateDer<'_>], cluster: ClusterId) -> Result<Holder, CryptoError> {
    let leaf = chain.first().ok_or_else(|| CryptoError::Certificate("none was shown".into()))?;
    let subject = Subject::of_certificate(leaf)?;
    if subject.cluster != cluster {
        return Err(CryptoError::Certificate("it is of another cluster".into()));
    }
    Ok(subject.holder)
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Prefers a cipher, and knows the others for peers that have no such instructions.
fn provider(cipher: Cipher) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let first = match cipher {
        Cipher::Aes128Gcm => CipherSuite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256Gcm => CipherSuite::TLS13_AES_256_GCM_SHA384,
        Cipher::ChaCha20Poly1305 => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

fn failed(error: impl fmt::Display) -> CryptoError {
    CryptoError::Tls(error.to_string())
}

fn roots(ca_der: &[u8]) -> Result<RootCertStore, CryptoError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec())).map_err(failed)?;
    Ok(roots)
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from(identity.cert_der.clone()), CertificateDer::from(identity.ca_der.clone())]
}

fn key(identity: &Identity) -> Result<PrivateKeyDer<'static>, CryptoError> {
    PrivateKeyDer::try_from(identity.key_der.clone()).map_err(|why| CryptoError::Key(why.into()))
}

/// Accepts a server whose certificate was signed by the pinned authority, which it must present: after finding the
/// authority by fingerprint, the ordinary verification runs with it as the one root.
#[derive(Debug)]
struct PinnedAuthority {
    ca_fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority =
            intermediates.iter().find(|shown| fingerprint(shown) == self.ca_fingerprint).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| unknown())?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
