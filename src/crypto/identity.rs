//! A member's identity: its certificate, its key and the authority it trusts; and the credential file they live in.
//!
//! A credential file is PEM: the member's certificate, the authority's, the key, and for those who dial the cluster
//! from outside the addresses of its metadata servers. It is readable by its owner alone and replaced atomically.

use std::fmt;
use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::subject::{Holder, Subject, cluster_of_authority};
use super::{CryptoError, ca, pem};
use crate::host::file::write_private;
use crate::types::id::ClusterId;
use crate::types::record::Role;

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";
const META_ADDRESSES: &str = "HOLDFAST META ADDRESSES";

/// Complete and consistent: the key fits the certificate, which the authority signed.
#[derive(Clone)]
pub struct Identity {
    pub cluster: ClusterId,
    pub role: Role,
    pub id: u64,
    pub cert_der: Vec<u8>,
    /// PKCS#8. Secret.
    pub key_der: Vec<u8>,
    pub ca_der: Vec<u8>,
}

/// An identity and where its cluster is.
#[derive(Clone, Debug)]
pub struct Credential {
    pub identity: Identity,
    /// `host:port` of metadata servers; one that answers is enough to find the others.
    pub metas: Vec<String>,
}

impl Identity {
    /// A new key (PKCS#8 DER) and a request to have it signed (DER).
    ///
    /// # Errors
    /// `Key` when the host cannot make one.
    pub fn new_key_and_csr() -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        let bad = |error: rcgen::Error| CryptoError::Key(error.to_string());
        let key = KeyPair::generate().map_err(bad)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(bad)?;
        Ok((key.serialize_der(), request.der().to_vec()))
    }

    /// Puts together what belongs together.
    ///
    /// # Errors
    /// The certificate is not a member's, the authority did not sign it, or the key is another's.
    pub fn from_parts(cert_der: Vec<u8>, key_der: Vec<u8>, ca_der: Vec<u8>) -> Result<Identity, CryptoError> {
        let Subject { cluster, holder: Holder { role, id, .. } } = Subject::of_certificate(&cert_der)?;
        if cluster_of_authority(&ca_der)? != cluster {
            return Err(CryptoError::WrongAuthority);
        }
        require_signed(&cert_der, &ca_der)?;
        require_pair(&cert_der, &ca::key_pair(&key_der)?)?;
        Ok(Identity { cluster, role, id, cert_der, key_der, ca_der })
    }

    /// A new identity signed on the spot: for `cluster init`, the embedded cluster and tests.
    ///
    /// # Errors
    /// As [`Identity::new_key_and_csr`].
    pub fn issue(authority: &ca::ClusterAuthority, role: Role, id: u64) -> Result<Identity, CryptoError> {
        Identity::issue_to(authority, Holder { role, id, reads_only: false })
    }

    /// # Errors
    /// As [`Identity::issue`].
    pub fn issue_to(authority: &ca::ClusterAuthority, holder: Holder) -> Result<Identity, CryptoError> {
        let (key_der, csr_der) = Identity::new_key_and_csr()?;
        let cert_der = authority.sign(&csr_der, holder)?;
        Identity::from_parts(cert_der, key_der, authority.ca_cert_der().to_vec())
    }

    /// # Errors
    /// `Io`, or `CredentialFile` when the file is not one.
    pub fn load(path: &Path) -> Result<Identity, CryptoError> {
        Credential::load(path).map(|credential| credential.identity)
    }

    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &Path) -> Result<(), CryptoError> {
        save(path, self, &[])
    }
}

impl Credential {
    /// # Errors
    /// `Io`, or `CredentialFile` when the file is not one.
    pub fn load(path: &Path) -> Result<Credential, CryptoError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| CryptoError::Io { path: shown.clone(), source })?;
        read(&text).map_err(|why| CryptoError::CredentialFile { path: shown, why })
    }

    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &Path) -> Result<(), CryptoError> {
        save(path, &self.identity, &self.metas)
    }

    /// What a credential's file holds: a secret.
    pub fn to_text(&self) -> String {
        text_of(&self.identity, &self.metas)
    }

    /// # Errors
    /// It is no credential; why.
    pub fn from_text(text: &str) -> Result<Credential, String> {
        read(text)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("role", &self.role)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn save(path: &Path, identity: &Identity, metas: &[String]) -> Result<(), CryptoError> {
    write_private(path, text_of(identity, metas).as_bytes())
        .map_err(|source| CryptoError::Io { path: path.display().to_string(), source })
}

fn text_of(identity: &Identity, metas: &[String]) -> String {
    let addresses = metas.join("\n");
    let mut blocks = vec![
        (CERTIFICATE, identity.cert_der.as_slice()),
        (CERTIFICATE, identity.ca_der.as_slice()),
        (PRIVATE_KEY, identity.key_der.as_slice()),
    ];
    if !metas.is_empty() {
        blocks.push((META_ADDRESSES, addresses.as_bytes()));
    }
    pem::encode(&blocks)
}

fn read(text: &str) -> Result<Credential, String> {
    let (mut certificates, mut key, mut metas) = (Vec::new(), None, Vec::new());
    for block in pem::decode(text)? {
        match block.label.as_str() {
            CERTIFICATE => certificates.push(block.bytes),
            PRIVATE_KEY => key = Some(block.bytes),
            META_ADDRESSES => {
                let text = String::from_utf8(block.bytes).map_err(|_| "the addresses are no text".to_string())?;
                metas = text.lines().map(String::from).collect();
            }
            other => return Err(format!("the block `{other}` does not belong there")),
        }
    }
    let [cert_der, ca_der] = <[Vec<u8>; 2]>::try_from(certificates)
        .map_err(|found| format!("it holds {} certificates, not a member's and its authority's", found.len()))?;
    let key_der = key.ok_or("it holds no private key")?;
    let identity = Identity::from_parts(cert_der, key_der, ca_der).map_err(|error| error.to_string())?;
    Ok(Credential { identity, metas })
}

fn require_signed(cert_der: &[u8], ca_der: &[u8]) -> Result<(), CryptoError> {
    let certificate = parse(cert_der)?;
    let authority = parse(ca_der)?;
    certificate.verify_signature(Some(authority.public_key())).map_err(|_| CryptoError::WrongAuthority)
}

/// Fails unless `key` is the one in the certificate.
pub(super) fn require_pair(cert_der: &[u8], key: &KeyPair) -> Result<(), CryptoError> {
    let certificate = parse(cert_der)?;
    if certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes() {
        return Ok(());
    }
    Err(CryptoError::Key("it belongs to another certificate".into()))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CryptoError> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(CryptoError::Certificate(error.to_string())),
    }
}
