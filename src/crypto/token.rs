//! Join tokens: what an operator hands to a new member. One string with everything it needs to find the cluster, to
//! know that it is the right one, and to be let in once.
//!
//! ```text
//! hf1.BASE32            lower case, no padding, of:
//! offset  size  field
//! 0       32    fingerprint of the authority's certificate (BLAKE3)
//! 32      32    secret; the cluster keeps its hash only
//! 64      1     number of addresses
//! 65      …     each: length (1 byte), `host:port`
//! end     4     first bytes of the BLAKE3 hash of all before: a mistyped token is known before anyone is asked
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

use crate::host::chance;
use crate::types::digest::fingerprint;

const PREFIX: &str = "hf1.";
const CHECK_BYTES: usize = 4;
const ADDRESSES_MAX: usize = 16;
/// A token of [`ADDRESSES_MAX`] addresses of 255 bytes in base32, rounded up.
const TEXT_BYTES_MAX: usize = 8 << 10;

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub ca_fingerprint: [u8; 32],
    pub secret: [u8; 32],
    /// `host:port` of metadata servers: at most 16, of at most 255 bytes; [`JoinToken::encode`] leaves out the others.
    pub metas: Vec<String>,
}

/// Why a text is not a token. None repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a join token begins with `{PREFIX}`")]
    Prefix,
    #[error("the join token has characters that do not belong in one")]
    Encoding,
    #[error("the join token is mistyped or incomplete")]
    Checksum,
    #[error("the join token is malformed")]
    Malformed,
}

impl JoinToken {
    /// A token with a new secret.
    pub fn create(ca_fingerprint: [u8; 32], metas: Vec<String>) -> JoinToken {
        JoinToken { ca_fingerprint, secret: chance::bytes(), metas }
    }

    /// What the cluster remembers of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }

    /// The text form. This is the one way in which the secret leaves the program.
    pub fn encode(&self) -> String {
        let fitting = self.metas.iter().filter(|meta| meta.len() <= usize::from(u8::MAX)).take(ADDRESSES_MAX);
        let metas: Vec<&String> = fitting.collect();
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.ca_fingerprint);
        bytes.extend_from_slice(&self.secret);
        bytes.push(metas.len() as u8);
        for meta in metas {
            bytes.push(meta.len() as u8);
            bytes.extend_from_slice(meta.as_bytes());
        }
        let check = fingerprint(&bytes);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

/// What the cluster remembers of a token's secret, and compares when a member brings one.
pub fn secret_hash(secret: &[u8; 32]) -> [u8; 32] {
    fingerprint(secret)
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| TokenError::Encoding)?;
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(TokenError::Malformed)?;
        if !fingerprint(body).starts_with(check) {
            return Err(TokenError::Checksum);
        }
        parse(body).ok_or(TokenError::Malformed)
    }
}

fn parse(body: &[u8]) -> Option<JoinToken> {
    let (ca_fingerprint, rest) = body.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<32>()?;
    let (count, mut rest) = rest.split_first()?;
    let mut metas = Vec::new();
    for _ in 0..*count {
        let (length, after) = rest.split_first()?;
        let (meta, after) = after.split_at_checked(usize::from(*length))?;
        metas.push(String::from_utf8(meta.to_vec()).ok()?);
        rest = after;
    }
    rest.is_empty().then_some(JoinToken { ca_fingerprint: *ca_fingerprint, secret: *secret, metas })
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("JoinToken").field("metas", &self.metas).finish_non_exhaustive()
    }
}
