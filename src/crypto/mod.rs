//! Who is who: the cluster's certificate authority, identities, join tokens and the TLS settings built from them.
//!
//! Owns every key and certificate. A certificate is the whole identity: its organisation is the cluster id, its common
//! name `role-id`, and a client that may only read is of a unit that says so. Keys and secrets never reach a log: every type that holds one has a `Debug` that hides it.
//!
//! In order: `holdfast cluster init` makes a [`ca::ClusterAuthority`]; a [`token::JoinToken`] is given to a new member,
//! which makes a key, has it signed over a connection that only checks the authority's fingerprint, and keeps the
//! result as an [`identity::Identity`] in a credential file; from then on both sides of every connection present one.

pub mod api_secret;
pub mod ca;
pub mod identity;
mod pem;
mod subject;
pub mod tls;
pub mod token;

pub use subject::Holder;

/// What keys and certificates can be wrong about. Each is one sentence for people and names no secret.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    #[error("not a certificate of a Holdfast cluster: {0}")]
    Certificate(String),
    #[error("the private key is not usable: {0}")]
    Key(String),
    #[error("the certificate signing request is not acceptable: {0}")]
    Request(String),
    #[error("the certificate was not signed by the authority beside it")]
    WrongAuthority,
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path} is not a credential file: {why}")]
    CredentialFile { path: String, why: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

#[cfg(test)]
mod tests;
