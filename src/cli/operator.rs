//! How an operator's command reaches the cluster: it finds a credential, dials, asks once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::{AdminArgs, CommonArgs};
use crate::cli::dial;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::settings::settings;
use crate::cli::up::place;
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, UpConfig};
use crate::crypto::identity::Credential;
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};
use crate::types::error::FsError;
use crate::types::record::Role;

/// Where an operator's credential is when nobody says.
const CREDENTIAL_DEFAULT: &str = "/etc/holdfast/admin.credential";
/// An election is waited out; a cluster that is away is not.
const PATIENCE: Duration = Duration::from_secs(15);

/// The cluster, as one who may administer it.
pub struct Operator {
    meta: Arc<MetaClient>,
}

/// Runs one command of an operator to its end.
///
/// # Errors
/// No usable credential, no answer, or what the command itself says.
pub fn run<F>(common: &CommonArgs, admin: &AdminArgs, command: impl FnOnce(Operator) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let (path, mut credential) = credential(common, admin)?;
    dial::small_runtime()?.block_on(async {
        let transport = dial::transport(&credential.identity)?;
        let meta = Arc::new(MetaClient::new(transport, credential.metas.clone()));
        command(Operator::new(Arc::clone(&meta))).await?;
        dial::refresh_metas(&meta, &mut credential, &path).await;
        Ok(())
    })
}

impl Operator {
    pub fn new(meta: Arc<MetaClient>) -> Operator {
        Operator { meta }
    }

    /// Asks about `subject` (`volume main`), which a refusal names.
    ///
    /// # Errors
    /// No answer in time, or the cluster refused; one sentence.
    pub async fn ask(&self, subject: &str, request: MetaRequest) -> Outcome<MetaBody> {
        let answered = self.meta.call(&request, Some(PATIENCE)).await.map_err(Failure::new)?;
        match answered.reply.body {
            MetaBody::Refused(why) => Err(Failure::new(why)),
            MetaBody::Error(FsError::NotFound) => Err(Failure::new(format!("there is no {subject}"))),
            MetaBody::Error(FsError::Exists) => Err(Failure::new(format!("there is a {subject} already"))),
            MetaBody::Error(error) => Err(Failure::new(format!("{subject}: {error}"))),
            body => Ok(body),
        }
    }
}

/// An answer that does not fit the question: a newer server, or a fault.
pub fn misfit() -> Failure {
    Failure::new("the cluster's answer was not understood; is it of another release?")
}

fn credential(common: &CommonArgs, admin: &AdminArgs) -> Outcome<(PathBuf, Credential)> {
    let mut flags = Flags::default();
    flags.set("common", "credential", admin.credential.as_ref().map(|path| path.to_string_lossy().into_owned()));
    let settings = settings(common, flags)?;
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
