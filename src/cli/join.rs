//! `holdfast join`: a token of a client or an operator becomes a credential file.

use std::path::Path;

use crate::cli::args::{CommonArgs, JoinArgs};
use crate::cli::dial;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::out::print_line;
use crate::cli::settings::{settings, token};
use crate::config::layer::Flags;
use crate::config::roles::CommonConfig;
use crate::crypto::identity::Credential;
use crate::crypto::token::JoinToken;
use crate::types::record::Role;

/// # Errors
/// The file is there already or cannot be made, there is no token, or the cluster refuses it.
pub fn run(common: &CommonArgs, args: JoinArgs) -> Outcome {
    let mut flags = Flags::default();
    args.join.flags(&mut flags);
    let config: CommonConfig = settings(common, flags)?.section()?;
    check_absent(&args.credential)?;
    let token = token(&config)?.ok_or_else(|| {
        Failure::usage("a token is needed: --token-file FILE, --token-file - for standard input, or $HOLDFAST_TOKEN")
    })?;
    let token = dial::parse_token(&token)?;
    let credential = dial::small_runtime()?.block_on(redeem(&token, args.role.into()))?;
    save(&credential, &args.credential)?;
    let role = format!("{:?}", credential.identity.role).to_lowercase();
    let held = format!("{} holds the credential of {role} {}", args.credential.display(), credential.identity.id);
    print_line(held)
}

/// Gives a token of a client or an operator for a credential.
///
/// # Errors
/// The cluster does not answer, or refuses.
pub async fn redeem(token: &JoinToken, role: Role) -> Outcome<Credential> {
    dial::join(token, role, "").await.map(|joined| joined.credential)
}

/// That a credential can be written there: a token is spent once, so this is found out before.
///
/// # Errors
/// Something is there already, or its directory cannot be written to.
pub fn check_absent(path: &Path) -> Outcome {
    if path.exists() {
        return Err(Failure::new(format!("{} is there already; a token makes a new credential", path.display())));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).or_fail(|| format!("{} cannot be made", dir.display()))?;
    let probe = dir.join(format!(".holdfast-{}", std::process::id()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).or_fail(|| dir.display().to_string())
}

/// # Errors
/// The file cannot be written.
pub fn save(credential: &Credential, path: &Path) -> Outcome {
    credential.save(path).or_fail(|| "the credential was received and cannot be saved".to_string())
}
