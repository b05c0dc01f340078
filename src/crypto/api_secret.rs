//! The secret of a key to the HTTP interface: made by whoever asks for the key, sent as a bearer token, kept by the cluster as
//! a hash.
//!
//! ```text
//! hfk1.BASE32           lower case, no padding, of:
//! offset  size  field
//! 0       32    secret
//! 32      4     first bytes of its BLAKE3 hash: a mistyped key is known before anyone is asked
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

use crate::host::chance;
use crate::types::digest::fingerprint;

const PREFIX: &str = "hfk1.";
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
/// Of base32: eight characters for five bytes.
const TEXT_BYTES: usize = ((SECRET_BYTES + CHECK_BYTES) * 8).div_ceil(5);

#[derive(Clone, PartialEq, Eq)]
pub struct ApiSecret([u8; SECRET_BYTES]);

/// The text is not a key; says nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key begins with `{PREFIX}`, and this one is mistyped or incomplete")]
pub struct NotAKey;

impl ApiSecret {
    pub fn create() -> ApiSecret {
        ApiSecret(chance::bytes())
    }

    /// What the cluster keeps of it and finds it by.
    pub fn hash(&self) -> [u8; 32] {
        fingerprint(&self.0)
    }

    /// The text form. This is the one way in which the secret leaves the program.
    pub fn encode(&self) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(&self.hash()[..CHECK_BYTES]);
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for ApiSecret {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<ApiSecret, NotAKey> {
        let text = text.trim().strip_prefix(PREFIX).filter(|text| text.len() == TEXT_BYTES).ok_or(NotAKey)?;
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| NotAKey)?;
        let (secret, check) = bytes.split_first_chunk::<SECRET_BYTES>().ok_or(NotAKey)?;
        let secret = ApiSecret(*secret);
        if secret.hash().starts_with(check) && check.len() == CHECK_BYTES { Ok(secret) } else { Err(NotAKey) }
    }
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ApiSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_secret() {
        let secret = ApiSecret::create();
        let text = secret.encode();
        assert_eq!(text.parse(), Ok(secret.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(secret.clone()));
        assert_ne!(secret.hash(), ApiSecret::create().hash());
        assert!(!format!("{secret:?}").contains(&text[5..]));
    }

    #[test]
    fn what_is_mistyped_is_no_key() {
        let text = ApiSecret::create().encode();
        let other = if text.ends_with('a') { "b" } else { "a" };
        let wrong = format!("{}{other}", &text[..text.len() - 1]);
        for text in ["", "hfk1.", "hf1.aaaa", &wrong, &text[..text.len() - 1], &format!("{text}a"), &text[5..]] {
            assert_eq!(text.parse::<ApiSecret>(), Err(NotAKey), "{text}");
        }
    }
}
