//! Connections to others, one per address, dialled when first needed and again when found dead.
//!
//! Callers that need the same connection wait for one dial together, and share its failure: a dead peer costs each of
//! them one timeout, not one after the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::fault::{self, code, unreachable};
use super::settings::CONNECT_TIMEOUT;
use super::{NetError, Peer, probe};
use crate::crypto::ca::SERVER_NAME;
use crate::crypto::{Holder, tls};
use crate::types::id::ClusterId;

/// A name that resolves to more addresses than this is tried at these only.
const ADDRESSES_MAX: usize = 4;

pub(super) struct Pool {
    endpoint: Endpoint,
    config: ClientConfig,
    cluster: ClusterId,
    slots: RwLock<HashMap<String, Arc<Slot>>>,
}

/// The connection to one address.
#[derive(Default)]
struct Slot {
    live: Mutex<Option<Connection>>,
    dialling: tokio::sync::Mutex<()>,
    failure: Mutex<Failure>,
}

/// The last dial that failed, and how many did.
#[derive(Default)]
struct Failure {
    count: u64,
    error: Option<NetError>,
}

impl Pool {
    pub fn new(endpoint: Endpoint, config: ClientConfig, cluster: ClusterId) -> Pool {
        Pool { endpoint, config, cluster, slots: RwLock::new(HashMap::new()) }
    }

    /// A connection that is alive as far as anybody knows.
    ///
    /// # Errors
    /// `Unreachable` or `Refused`: nothing was sent.
    pub async fn connection(&self, address: &str) -> Result<Connection, NetError> {
        let slot = self.slot(address);
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let failures = slot.failure.lock().count;
        let _turn = slot.dialling.lock().await;
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        if let Some(error) = slot.failure_since(failures) {
            return Err(error);
        }
        match self.dial(address).await {
            Ok(connection) => {
                *slot.live.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let mut failure = slot.failure.lock();
                failure.count += 1;
                failure.error = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn dial(&self, address: &str) -> Result<Connection, NetError> {
        let (connection, target) = dial(&self.endpoint, &self.config, address).await?;
        match peer_of(&connection, self.cluster) {
            Ok(Some(_)) => {
                tokio::spawn(probe::watch(connection.clone(), target));
                Ok(connection)
            }
            Ok(None) => unreachable!("TLS lets no server through without a certificate"),
            Err(why) => {
                connection.close(code::REFUSED, b"not of this cluster");
                Err(fault::refused(address, why))
            }
        }
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        if let Some(slot) = self.slots.read().get(address) {
            return slot.clone();
        }
        self.slots.write().entry(address.to_string()).or_default().clone()
    }
}

impl Slot {
    fn live(&self) -> Option<Connection> {
        let mut live = self.live.lock();
        if live.as_ref().is_some_and(|connection| connection.close_reason().is_some()) {
            *live = None;
        }
        live.clone()
    }

    /// The error of a dial that failed since the count was `seen`: it was under way while the caller waited.
    fn failure_since(&self, seen: u64) -> Option<NetError> {
        let failure = self.failure.lock();
        if failure.count == seen { None } else { failure.error.clone() }
    }
}

/// Tries the addresses behind `address` in turn.
pub(super) async fn dial(
    endpoint: &Endpoint,
    config: &ClientConfig,
    address: &str,
) -> Result<(Connection, SocketAddr), NetError> {
    let mut error = unreachable(address, "the name has no address");
    for target in resolve(address).await?.into_iter().take(ADDRESSES_MAX) {
        let connecting = match endpoint.connect_with(config.clone(), target, SERVER_NAME) {
            Ok(connecting) => connecting,
            Err(why) => {
                error = unreachable(address, why);
                continue;
            }
        };
        error = tokio::select! {
            connected = timeout(CONNECT_TIMEOUT, connecting) => match connected {
                Ok(Ok(connection)) => return Ok((connection, target)),
                Ok(Err(why)) => fault::before_sending(address, &why),
                Err(_) => unreachable(address, "no answer to the connection attempt"),
            },
            () = probe::refusal(target) => unreachable(address, "nobody listens there"),
        };
    }
    Err(error)
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, NetError> {
    if let Ok(target) = address.parse() {
        return Ok(vec![target]);
    }
    match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(address)).await {
        Ok(Ok(targets)) => Ok(targets.collect()),
        Ok(Err(error)) => Err(unreachable(address, error)),
        Err(_) => Err(unreachable(address, "the name service does not answer")),
    }
}

/// Who is on the other side: `None` when it showed no certificate.
///
/// # Errors
/// It showed one that is not of this cluster; the reason in words.
pub(super) fn peer_of(connection: &Connection, cluster: ClusterId) -> Result<Option<Peer>, String> {
    let Some(identity) = connection.peer_identity() else { return Ok(None) };
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| "no certificate chain".to_string())?;
    let Holder { role, id, reads_only } = tls::holder(&chain, cluster).map_err(|error| error.to_string())?;
    Ok(Some(Peer { role, id, reads_only }))
}
