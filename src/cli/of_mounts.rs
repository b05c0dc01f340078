//! The credential of the mounts that a host makes for others: got once, with the rights of an operator, and kept in a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::failure::Outcome;
use crate::cli::{dial, join};
use crate::remote::operator::Operator;
use crate::types::record::{ClientGrant, Role};

const FILE: &str = "client.credential";
/// It is spent at once.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// The file in `dir`, which is made if need be.
///
/// # Errors
/// The cluster does not answer, or the file cannot be made.
pub async fn credential(cluster: &Operator, dir: &Path) -> Outcome<PathBuf> {
    let file = dir.join(FILE);
    if !file.exists() {
        join::check_absent(&file)?;
        let ttl_ms = u64::try_from(TOKEN_TTL.as_millis()).unwrap_or(u64::MAX);
        let token = cluster.create_token(Role::Client, ClientGrant::default(), ttl_ms).await?;
        join::save(&join::redeem(&dial::parse_token(&token)?, Role::Client).await?, &file)?;
    }
    Ok(file)
}
