//! The certificate authority of one cluster. Metadata servers hold it and sign for whoever brings a valid token.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

use super::CryptoError;
use super::subject::{Holder, Subject, cluster_of_authority};
use crate::host::{chance, clock};
use crate::types::digest::fingerprint;
use crate::types::id::ClusterId;
use crate::types::record::Role;

/// The DNS name in every certificate. Addresses of containers change; the name that is checked does not.
pub const SERVER_NAME: &str = "holdfast";

/// Valid from a day ago, because clocks of hosts differ, for thirty years: a filesystem must not stop on a date.
/// A member is put out by the cluster forgetting it, not by time.
const VALID_BEFORE: Duration = Duration::from_secs(24 * 3600);
const VALID_AFTER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

pub struct ClusterAuthority {
    cluster: ClusterId,
    cert_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterAuthority {
    /// A new authority with a new key.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn create(cluster: ClusterId) -> Result<ClusterAuthority, CryptoError> {
        let key = KeyPair::generate().map_err(|error| CryptoError::Key(error.to_string()))?;
        let mut params = params(cluster, "holdfast authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(|error| CryptoError::Certificate(error.to_string()))?;
        Ok(ClusterAuthority { cluster, cert_der: certificate.der().to_vec(), issuer: Issuer::new(params, key) })
    }

    /// The authority from its certificate (DER) and its key (PKCS#8 DER).
    ///
    /// # Errors
    /// The bytes are not an authority's certificate, or not a key that can sign.
    pub fn from_parts(cert_der: &[u8], key_der: &[u8]) -> Result<ClusterAuthority, CryptoError> {
        let cluster = cluster_of_authority(cert_der)?;
        let key = key_pair(key_der)?;
        super::identity::require_pair(cert_der, &key)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(cert_der), key)
            .map_err(|error| CryptoError::Certificate(error.to_string()))?;
        Ok(ClusterAuthority { cluster, cert_der: cert_der.to_vec(), issuer })
    }

    /// Signs a request. Only its key is taken from it; what the certificate says is decided here.
    ///
    /// Servers may be dialled and dial; clients and administrators only dial, so a stolen client credential cannot pose
    /// as a server.
    ///
    /// # Errors
    /// `Request` when the bytes are no request, or it is not signed by its own key.
    pub fn sign(&self, csr_der: &[u8], holder: Holder) -> Result<Vec<u8>, CryptoError> {
        let bad = |error: rcgen::Error| CryptoError::Request(error.to_string());
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der)).map_err(bad)?;
        let subject = Subject { cluster: self.cluster, holder };
        let mut params = params(self.cluster, &subject.common_name());
        if let Some(unit) = subject.unit() {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(holder.role, Role::Meta | Role::Store) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let name = SERVER_NAME.try_into().map_err(bad)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(bad)?;
        Ok(certificate.der().to_vec())
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn ca_cert_der(&self) -> &[u8] {
        &self.cert_der
    }

    /// The secret: for other metadata servers and for the disk, and for nobody else.
    pub fn ca_key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// What join tokens know the authority by.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.cert_der)
    }
}

impl fmt::Debug for ClusterAuthority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClusterAuthority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

pub(super) fn key_pair(key_der: &[u8]) -> Result<KeyPair, CryptoError> {
    let bad = |why: &dyn fmt::Display| CryptoError::Key(why.to_string());
    let key = PrivateKeyDer::try_from(key_der).map_err(|why| bad(&why))?;
    KeyPair::try_from(&key).map_err(|error| bad(&error))
}

fn params(cluster: ClusterId, common_name: &str) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster.to_string());
    name.push(DnType::CommonName, common_name);
    let mut serial: [u8; 16] = chance::bytes();
    // A serial number is a positive integer; without a leading zero bit it would be written a byte longer.
    serial[0] &= 0x7f;
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(clock::now().sec.max(0).unsigned_abs());
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = now - VALID_BEFORE;
    params.not_after = now + VALID_AFTER;
    params
}
