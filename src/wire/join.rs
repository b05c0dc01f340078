//! Joining a cluster (`KIND_JOIN`): the one call that needs no client certificate, only a token. The caller knows the
//! cluster's CA by the fingerprint in its token.

use rkyv::{Archive, Deserialize, Serialize};

use crate::types::id::ClusterId;
use crate::types::record::{MetaInfo, Role};

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub token_secret: [u8; 32],
    pub role: Role,
    /// A certificate signing request, DER.
    pub csr: Vec<u8>,
    /// Where a metadata server or a store will serve; empty for clients.
    pub address: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub enum JoinReply {
    Welcome(Box<Welcome>),
    NotLeader(Option<MetaInfo>),
    /// One sentence for people.
    Refused(String),
}

/// What a new member gets.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub cluster: ClusterId,
    /// The member's number within its role.
    pub id: u64,
    /// Signed certificate and the CA's, DER.
    pub certificate: Vec<u8>,
    pub ca_certificate: Vec<u8>,
    /// For metadata servers only (they sign for others): the CA's key, PKCS#8 DER.
    pub ca_key: Option<Vec<u8>>,
    pub metas: Vec<MetaInfo>,
}
