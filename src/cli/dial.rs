//! Reaching a cluster: a runtime, a transport as a member, and joining as one who is not a member yet.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::cli::failure::{Context, Failure, Outcome};
use crate::crypto::identity::{Credential, Identity};
use crate::crypto::token::JoinToken;
use crate::net::quic::{QuicEndpoint, join_call};
use crate::net::{Frame, NetError, Transport};
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};
use crate::types::digest::fingerprint;
use crate::types::record::Role;
use crate::wire::codec::{KIND_JOIN, decode, encode};
use crate::wire::join::{JoinReply, JoinRequest, Welcome};

/// Joining waits for an election, and not much longer.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
const JOIN_DEADLINE: Duration = Duration::from_secs(5);
/// A list of servers is worth this much waiting.
const REFRESH_PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// For a command that asks and ends.
///
/// # Errors
/// The host gives no thread or descriptor.
pub fn small_runtime() -> Outcome<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_fail(|| "the program cannot start".to_string())
}

/// For a daemon of one role: a worker for every other core.
///
/// # Errors
/// The host gives no thread or descriptor.
pub fn runtime() -> Outcome<Runtime> {
    // One role is not alone on its host, and each worker that is woken for a small call costs a switch: with one worker
    // instead of two, on two cores, 4 KiB reads at depth 16 went from 13,900 to 20,100 a second, reading small files from
    // 1,140 to 1,500, and large transfers stayed as they were.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    with_workers((cores / 2).max(1))
}

/// Runs a role to its end, and waits for nothing that it has left waiting: a mount that hangs must not hold up the end of who looks at it.
///
/// # Errors
/// The host gives no thread or descriptor, or what the role says.
pub fn run_to_end(role: impl Future<Output = Outcome>) -> Outcome {
    let runtime = runtime()?;
    let outcome = runtime.block_on(role);
    runtime.shutdown_background();
    outcome
}

/// For a process that is all roles at once.
///
/// # Errors
/// The system has no threads to give.
pub fn runtime_for_all_roles() -> Outcome<Runtime> {
    with_workers(std::thread::available_parallelism().map_or(2, usize::from).max(2))
}

fn with_workers(count: usize) -> Outcome<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(count).enable_all().build();
    runtime.or_fail(|| "the program cannot start".to_string())
}

/// The way to call others as `identity`, without being called. Inside a runtime.
///
/// # Errors
/// No socket is to be had.
pub fn transport(identity: &Identity) -> Outcome<Arc<dyn Transport>> {
    Ok(Arc::new(QuicEndpoint::bind(None, identity).map_err(Failure::new)?))
}

/// Learns which metadata servers there are now, and keeps the list beside the credential: the one it was made with
/// may name servers that are gone. Best effort: without it the command has succeeded all the same.
pub async fn refresh_metas(meta: &MetaClient, credential: &mut Credential, path: &Path) {
    let Some(metas) = metas_now(meta).await.filter(|metas| *metas != credential.metas) else { return };
    credential.metas = metas;
    if let Err(error) = credential.save(path) {
        tracing::debug!(%error, "the metadata servers could not be remembered");
    }
}

/// Which metadata servers there are, in order; `None` when nobody says so in a moment.
pub async fn metas_now(meta: &MetaClient) -> Option<Vec<String>> {
    let answered = meta.call(&MetaRequest::Members, Some(REFRESH_PATIENCE)).await.ok()?;
    let MetaBody::Members { metas, .. } = answered.reply.body else { return None };
    let mut metas: Vec<String> = metas.into_iter().map(|meta| meta.address).collect();
    metas.sort();
    (!metas.is_empty()).then_some(metas)
}

/// A new member.
pub struct Joined {
    pub credential: Credential,
    /// For metadata servers: the authority's key, PKCS#8 DER. Secret.
    pub ca_key: Option<Vec<u8>>,
}

/// Reads a token.
///
/// # Errors
/// It is mistyped or not a token; the sentence does not repeat it.
pub fn parse_token(text: &str) -> Outcome<JoinToken> {
    text.parse().map_err(Failure::new)
}

/// Gives the token for a certificate. `address`: where a server will serve; empty for clients.
///
/// # Errors
/// The cluster does not answer, is not the one of the token, or refuses.
pub async fn join(token: &JoinToken, role: Role, address: &str) -> Outcome<Joined> {
    let (key_der, csr) = Identity::new_key_and_csr().map_err(Failure::new)?;
    let request = JoinRequest { token_secret: token.secret, role, csr, address: address.to_string() };
    let welcome = ask_to_join(token, &request).await?;
    if fingerprint(&welcome.ca_certificate) != token.ca_fingerprint {
        return Err(Failure::new("the server that answered is not of the token's cluster"));
    }
    let identity = Identity::from_parts(welcome.certificate, key_der, welcome.ca_certificate);
    let identity = identity.or_fail(|| "the cluster answered with an unusable certificate".to_string())?;
    let metas = welcome.metas.into_iter().map(|meta| meta.address).collect();
    Ok(Joined { credential: Credential { identity, metas }, ca_key: welcome.ca_key })
}

/// Asks one metadata server after the other until one decides. The same request again is harmless: the cluster knows
/// it by its key.
async fn ask_to_join(token: &JoinToken, request: &JoinRequest) -> Outcome<Welcome> {
    let frame = Frame { kind: KIND_JOIN, message: encode(request).into(), bulk: Bytes::new() };
    let mut targets: Vec<String> = token.metas.clone();
    let mut why = "the token names no metadata server".to_string();
    let begun = Instant::now();
    while !targets.is_empty() && begun.elapsed() < JOIN_PATIENCE {
        let target = targets.remove(0);
        match join_call(&target, token.ca_fingerprint, frame.clone(), JOIN_DEADLINE).await {
            Ok(reply) => match decode::<JoinReply>(&reply.message) {
                Ok(JoinReply::Welcome(welcome)) => return Ok(*welcome),
                Ok(JoinReply::Refused(why)) => return Err(Failure::new(format!("the cluster refused: {why}"))),
                Ok(JoinReply::NotLeader(hint)) => {
                    why = "the cluster has no leader".to_string();
                    if let Some(leader) = hint.filter(|leader| leader.address != target) {
                        targets.retain(|other| *other != leader.address);
                        targets.insert(0, leader.address);
                    }
                }
                Err(error) => return Err(Failure::new(error)),
            },
            Err(error @ NetError::Refused { .. }) if token.metas.len() == 1 => return Err(Failure::new(error)),
            Err(error) => why = error.to_string(),
        }
        targets.push(target);
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::new(format!("the cluster cannot be joined: {why}")))
}
