//! How an operator's command reaches the cluster: it finds a credential, dials, asks once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::{AdminArgs, CommonArgs};
use crate::cli::dial;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::settings::settings;
use crate::cli::up::place;
use crate::config::layer::{Flags, Settings};
use crate::config::roles::{CommonConfig, UpConfig};
use crate::crypto::identity::Credential;
use crate::remote::meta::MetaClient;
use crate::remote::operator::{Operator, OperatorError};
use crate::types::record::Role;

/// Where an operator's credential is when nobody says.
const CREDENTIAL_DEFAULT: &str = "/etc/holdfast/admin.credential";

/// Runs one command of an operator to its end.
///
/// # Errors
/// No usable credential, no answer, or what the command itself says.
pub fn run<F>(common: &CommonArgs, admin: &AdminArgs, command: impl FnOnce(Operator) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let settings = settings(common, flags(admin))?;
    let (path, mut credential) = credential(&settings)?;
    dial::small_runtime()?.block_on(async {
        let transport = dial::transport(&credential.identity)?;
        let meta = Arc::new(MetaClient::new(transport, credential.metas.clone()));
        command(Operator::new(Arc::clone(&meta))).await?;
        dial::refresh_metas(&meta, &mut credential, &path).await;
        Ok(())
    })
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Failure {
        Failure::new(error)
    }
}

fn flags(admin: &AdminArgs) -> Flags {
    let mut flags = Flags::default();
    flags.set("common", "credential", admin.credential.as_ref().map(|path| path.to_string_lossy().into_owned()));
    flags
}

/// The operator's credential that the settings name, or one that lies where it usually does.
///
/// # Errors
/// There is none, or it is not an operator's.
pub fn credential(settings: &Settings) -> Outcome<(PathBuf, Credential)> {
    let named = settings.section::<CommonConfig>()?.credential;
    let path = if named.as_os_str().is_empty() { find(&settings.section()?)? } else { named };
    let credential = Credential::load(&path).or_fail(|| "the credential cannot be used".to_string())?;
    match credential.identity.role {
        Role::Admin => Ok((path, credential)),
        other => {
            let path = path.display();
            Err(Failure::new(format!("{path} is the credential of a {other:?}, not of an operator").to_lowercase()))
        }
    }
}

fn find(up: &UpConfig) -> Outcome<PathBuf> {
    let of_up = place::data_dir(up)?.join(place::CREDENTIAL_FILE);
    let found = [PathBuf::from(CREDENTIAL_DEFAULT), of_up].into_iter().find(|path: &PathBuf| Path::exists(path));
    found.ok_or_else(|| {
        Failure::new(format!(
            "no operator's credential: name one with --credential FILE or $HOLDFAST_CREDENTIAL, or put it at \
             {CREDENTIAL_DEFAULT}"
        ))
    })
}
