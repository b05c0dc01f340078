//! Joining: a token for a certificate.
//!
//! The token is used up by a replicated command, so it works once whichever server is asked; asking again with the
//! same key (a lost reply) gives the same member number.

use super::{Fail, Shared, unexpected};
use crate::crypto::Holder;
use crate::crypto::token::secret_hash;
use crate::meta::command::{Command, Outcome};
use crate::types::digest::fingerprint;
use crate::types::id::MetaId;
use crate::types::record::{MetaInfo, Role};
use crate::wire::codec::decode;
use crate::wire::join::{JoinReply, JoinRequest, Welcome};

impl Shared {
    pub(super) async fn join(&self, message: &[u8]) -> JoinReply {
        let Ok(request) = decode::<JoinRequest>(message) else {
            return JoinReply::Refused("the request to join is malformed".into());
        };
        match self.welcome(request).await {
            Ok(welcome) => JoinReply::Welcome(Box::new(welcome)),
            Err(Fail::NotLeader(hint) | Fail::Uncertain(hint)) => JoinReply::NotLeader(hint),
            Err(Fail::Refused(why)) => JoinReply::Refused(why),
            Err(Fail::Fs(error)) => JoinReply::Refused(error.to_string()),
        }
    }

    async fn welcome(&self, request: JoinRequest) -> Result<Welcome, Fail> {
        self.lead()?;
        let command = Command::UseToken {
            hash: secret_hash(&request.token_secret),
            key: fingerprint(&request.csr),
            role: request.role,
            address: request.address.clone(),
            now: self.now(),
        };
        let (id, grant) = match self.propose(&command).await? {
            Outcome::Member { id, grant } => (id, grant),
            other => return Err(unexpected(other)),
        };
        // Who knows no grants, as stores do, goes by the certificate.
        let reads_only = request.role == Role::Client && grant.read_only;
        let certificate = self
            .authority
            .sign(&request.csr, Holder { role: request.role, id, reads_only })
            .map_err(|error| Fail::Refused(format!("the certificate could not be signed: {error}")))?;
        if request.role == Role::Meta {
            // The growth worker makes it a voter as soon as it answers.
            let info = MetaInfo { id: MetaId(id), address: request.address };
            self.propose(&Command::AddMeta { info }).await?;
        }
        let ca_key = (request.role == Role::Meta).then(|| self.authority.ca_key_der().to_vec());
        let metas = self.raft.members().into_iter().map(|(info, ..)| info).collect();
        let ca_certificate = self.authority.ca_cert_der().to_vec();
        Ok(Welcome { cluster: self.cluster, id, certificate, ca_certificate, ca_key, metas })
    }
}
