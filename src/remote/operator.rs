//! The cluster, as one who may administer it: what operators ask, as methods, with errors that are sentences.

use std::sync::Arc;
use std::time::Duration;

use super::meta::{Answered, CallError, MetaBody, MetaClient, MetaRequest};
use crate::types::api_key::ApiKey;
use crate::types::error::FsError;
use crate::types::record::{ClientGrant, ClusterStatus, Role, SpaceReport};
use crate::types::volume::{NewVolume, Volume, VolumeChange, VolumeUsage};

/// An election is waited out; a cluster that is away is not.
const PATIENCE: Duration = Duration::from_secs(15);
/// For whoever wants to know whether it is there.
pub const PROBE_PATIENCE: Duration = Duration::from_millis(1_500);
/// What a call may take longer than it is waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Asks as an operator. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    meta: Arc<MetaClient>,
}

/// Why an operator was not given what they asked for; each is one sentence.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperatorError {
    #[error("there is no {0}")]
    NotFound(String),
    #[error("there is a {0} already")]
    Exists(String),
    #[error("{0}")]
    Refused(String),
    #[error("{subject}: {error}")]
    Failed { subject: String, error: FsError },
    #[error(transparent)]
    Away(#[from] CallError),
    /// A newer server, or a fault.
    #[error("the cluster's answer was not understood; is it of another release?")]
    Misfit,
}

impl Operator {
    pub fn new(meta: Arc<MetaClient>) -> Operator {
        Operator { meta }
    }

    /// Asks about `subject` (`volume main`), which a refusal names.
    ///
    /// # Errors
    /// No answer in time, or the cluster refused; one sentence.
    pub async fn ask(&self, subject: &str, request: MetaRequest) -> Result<MetaBody, OperatorError> {
        body_of(subject, self.answer(&request, PATIENCE).await?)
    }

    /// A server that took a call and does not answer it is given up as well.
    async fn answer(&self, request: &MetaRequest, patience: Duration) -> Result<Answered, CallError> {
        let answered = tokio::time::timeout(patience + GRACE, self.meta.call(request, Some(patience))).await;
        answered.unwrap_or_else(|_| Err(CallError::Unreachable("it did not answer in time".into())))
    }

    /// # Errors
    /// As [`Operator::ask`].
    pub async fn create_volume(&self, volume: NewVolume) -> Result<Volume, OperatorError> {
        match self.ask(&format!("volume {}", volume.name), MetaRequest::CreateVolume(volume)).await? {
            MetaBody::Volume(volume, _) => Ok(volume),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// # Errors
    /// As [`Operator::ask`].
    pub async fn change_volume(
        &self,
        name: &str,
        change: VolumeChange,
    ) -> Result<(Volume, VolumeUsage), OperatorError> {
        let request = MetaRequest::ChangeVolume { name: name.to_string(), change };
        match self.ask(&format!("volume {name}"), request).await? {
            MetaBody::Volume(volume, usage) => Ok((volume, usage)),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// # Errors
    /// As [`Operator::ask`].
    pub async fn volume(&self, name: &str) -> Result<(Volume, VolumeUsage), OperatorError> {
        match self.ask(&format!("volume {name}"), MetaRequest::ShowVolume { name: name.to_string() }).await? {
            MetaBody::Volume(volume, usage) => Ok((volume, usage)),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// # Errors
    /// As [`Operator::ask`].
    pub async fn volumes(&self) -> Result<Vec<(Volume, VolumeUsage)>, OperatorError> {
        match self.ask("list of volumes", MetaRequest::ListVolumes).await? {
            MetaBody::Volumes(volumes) => Ok(volumes),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// # Errors
    /// As [`Operator::ask`].
    pub async fn delete_volume(&self, name: &str) -> Result<(), OperatorError> {
        self.delete(&format!("volume {name}"), MetaRequest::DeleteVolume { name: name.to_string() }).await
    }

    /// # Errors
    /// As [`Operator::ask`].
    pub async fn status(&self) -> Result<ClusterStatus, OperatorError> {
        self.status_within(PATIENCE).await
    }

    /// For whoever will not wait so long.
    ///
    /// # Errors
    /// As [`Operator::ask`].
    pub async fn status_within(&self, patience: Duration) -> Result<ClusterStatus, OperatorError> {
        match body_of("status", self.answer(&MetaRequest::Status, patience).await?)? {
            MetaBody::Status(status) => Ok(status),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// What volumes of so many copies can hold together, and what is left of that: as `df` says without a quota.
    ///
    /// # Errors
    /// As [`Operator::ask`].
    pub async fn room(&self, copies: u8) -> Result<SpaceReport, OperatorError> {
        match self.ask("room", MetaRequest::Room { copies }).await? {
            MetaBody::Space(report) => Ok(report),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// A one-time token to join with, in its text form.
    ///
    /// # Errors
    /// As [`Operator::ask`].
    pub async fn create_token(&self, role: Role, grant: ClientGrant, ttl_ms: u64) -> Result<String, OperatorError> {
        match self.ask("token", MetaRequest::CreateToken { role, grant, ttl_ms }).await? {
            MetaBody::Token(token) => Ok(token),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// The key whose secret has this hash; `None` where there is none, or it has expired.
    ///
    /// # Errors
    /// As [`Operator::ask`].
    pub async fn check_key(&self, hash: [u8; 32]) -> Result<Option<ApiKey>, OperatorError> {
        let answered = self.answer(&MetaRequest::CheckApiKey { hash }, PROBE_PATIENCE).await?;
        match body_of("key", answered) {
            Ok(MetaBody::ApiKey(key)) => Ok(Some(key)),
            Ok(_) => Err(OperatorError::Misfit),
            Err(OperatorError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether somebody answers, and knows of a leader.
    pub async fn has_leader(&self) -> bool {
        match self.answer(&MetaRequest::Members, PROBE_PATIENCE).await {
            Ok(answered) => matches!(answered.reply.body, MetaBody::Members { leader: Some(_), .. }),
            Err(_) => false,
        }
    }

    /// Asks for what has no answer but that it is done.
    ///
    /// # Errors
    /// As [`Operator::ask`].
    pub async fn done(&self, subject: &str, request: MetaRequest) -> Result<(), OperatorError> {
        match self.ask(subject, request).await? {
            MetaBody::Done => Ok(()),
            _ => Err(OperatorError::Misfit),
        }
    }

    /// Asks for something to be gone. Where an earlier try may have done it and its answer was lost, that it is not there is the
    /// answer.
    ///
    /// # Errors
    /// As [`Operator::ask`].
    pub async fn delete(&self, subject: &str, request: MetaRequest) -> Result<(), OperatorError> {
        let answered = self.answer(&request, PATIENCE).await?;
        let uncertain = answered.uncertain;
        match body_of(subject, answered) {
            Ok(MetaBody::Done) => Ok(()),
            Ok(_) => Err(OperatorError::Misfit),
            Err(OperatorError::NotFound(_)) if uncertain => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn body_of(subject: &str, answered: Answered) -> Result<MetaBody, OperatorError> {
    match answered.reply.body {
        MetaBody::Refused(why) => Err(OperatorError::Refused(why)),
        MetaBody::Error(FsError::NotFound) => Err(OperatorError::NotFound(subject.to_string())),
        MetaBody::Error(FsError::Exists) => Err(OperatorError::Exists(subject.to_string())),
        MetaBody::Error(error) => Err(OperatorError::Failed { subject: subject.to_string(), error }),
        body => Ok(body),
    }
}

#[cfg(test)]
impl Operator {
    /// Of a cluster that nobody reaches.
    pub fn of_nobody() -> Operator {
        let transport = crate::net::sim::SimNet::new(1).transport(None, "nobody");
        Operator::new(Arc::new(MetaClient::new(transport, Vec::new())))
    }
}
