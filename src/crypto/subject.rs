//! What a certificate says of its holder.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::CryptoError;
use crate::types::id::ClusterId;
use crate::types::record::Role;

/// The organisational unit of clients that write nothing. Others have none, and so have those whose certificates are older than it.
const READS_ONLY: &str = "read-only";

/// A member, as its certificate has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub role: Role,
    pub id: u64,
    /// A client that may mount volumes read-only alone.
    pub reads_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub cluster: ClusterId,
    pub holder: Holder,
}

impl Subject {
    /// The common name: `store-3`.
    pub fn common_name(&self) -> String {
        format!("{}-{}", role_name(self.holder.role), self.holder.id)
    }

    pub fn unit(&self) -> Option<&'static str> {
        self.holder.reads_only.then_some(READS_ONLY)
    }

    /// Reads a member's certificate. Says nothing about who signed it.
    pub fn of_certificate(der: &[u8]) -> Result<Subject, CryptoError> {
        let bad = |why: &str| CryptoError::Certificate(why.into());
        let certificate = parse(der)?;
        let cluster = organisation(&certificate)?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return Err(bad("no single common name")) };
        let name = name.as_str().map_err(|_| bad("the common name is no text"))?;
        let (role, id) = name.split_once('-').ok_or_else(|| bad("the common name is not `role-id`"))?;
        let role = role_of(role).ok_or_else(|| bad("the common name names no role"))?;
        let id = id.parse().map_err(|_| bad("the common name ends in no number"))?;
        let mut units = certificate.subject().iter_organizational_unit();
        let reads_only = units.any(|unit| unit.as_str() == Ok(READS_ONLY));
        Ok(Subject { cluster, holder: Holder { role, id, reads_only } })
    }
}

/// The cluster of an authority's certificate.
pub(super) fn cluster_of_authority(der: &[u8]) -> Result<ClusterId, CryptoError> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err(CryptoError::Certificate("it is not an authority's".into()));
    }
    organisation(&certificate)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CryptoError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CryptoError::Certificate("there are bytes after it".into())),
        Err(error) => Err(CryptoError::Certificate(error.to_string())),
    }
}

fn organisation(certificate: &X509Certificate<'_>) -> Result<ClusterId, CryptoError> {
    let bad = |why: &str| CryptoError::Certificate(why.into());
    let mut names = certificate.subject().iter_organization();
    let (Some(name), None) = (names.next(), names.next()) else { return Err(bad("no single organisation")) };
    let name = name.as_str().map_err(|_| bad("the organisation is no text"))?;
    name.parse().map_err(|_| bad("the organisation is no cluster id"))
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Meta => "meta",
        Role::Store => "store",
        Role::Client => "client",
        Role::Admin => "admin",
    }
}

fn role_of(name: &str) -> Option<Role> {
    [Role::Meta, Role::Store, Role::Client, Role::Admin].into_iter().find(|role| role_name(*role) == name)
}
