//! The cluster inside one process: one metadata server, three stores with one disk each, one volume.
//!
//! Real servers over QUIC on loopback, made by the same steps an operator takes: the first metadata server's directory,
//! tokens, stores that join. Made once; a creation that was cut short is begun anew (the file `complete` comes last,
//! and nobody's data is there before it).

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::cluster;
use crate::cli::dial;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::join;
use crate::cli::member::{self, Addresses, Member};
use crate::cli::up::place::Layout;
use crate::cli::{meta, store, volume};
use crate::crypto::identity::Credential;
use crate::crypto::token::JoinToken;
use crate::daemon::shutdown::Shutdown;
use crate::host::file::write_atomically;
use crate::meta::server::CACHE_BYTES_DEFAULT;
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};
use crate::remote::operator::{Operator, OperatorError};
use crate::types::id::ClusterId;
use crate::types::record::{ClientGrant, Role};
use crate::types::volume::NewVolume;

pub const VOLUME: &str = "main";
pub const STORES: usize = 3;
/// Ports are looked for in this range: below the one that the kernel hands out by itself, so that they are free again
/// after a restart of the host.
const PORT_FIRST: u16 = 7400;
const PORTS: u16 = 4000;
const TOKEN_TTL_MS: u64 = 60_000;
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The servers at work.
pub struct Embedded {
    meta: meta::Running,
    stores: Vec<store::Running>,
    /// Their own token: they outlive the mount.
    shutdown: Shutdown,
}

impl Embedded {
    /// Starts everything, making what is not there yet. `dir` is locked by the caller.
    ///
    /// # Errors
    /// A directory is damaged, a port is taken, a server does not start.
    pub async fn start(dir: &Path, cluster: ClusterId) -> Outcome<Embedded> {
        let layout = Layout(dir);
        let shutdown = Shutdown::new();
        let fresh = !layout.complete().exists();
        let first = if fresh { make_meta(&layout, cluster)? } else { open_meta(&layout).await? };
        let meta = meta::Running::start(first, CACHE_BYTES_DEFAULT, shutdown.clone()).await?;
        let operator = operator(&layout)?;
        let mut stores = Vec::new();
        for n in 1..=STORES {
            stores.push(start_store(&layout, cluster, n, &operator, shutdown.clone()).await?);
        }
        make_volume(&operator).await?;
        make_client(&layout, &operator).await?;
        close_sessions(&layout, &operator).await?;
        if fresh {
            write_atomically(&layout.complete(), b"").or_fail(|| dir.display().to_string())?;
        }
        Ok(Embedded { meta, stores, shutdown })
    }

    /// `host:port` of the metadata server.
    pub fn meta_address(&self) -> &str {
        &self.meta.address
    }

    /// Returns when the metadata server has failed, with the reason.
    pub async fn failed(&self) -> String {
        self.meta.failed().await
    }

    /// Stops the stores, then the metadata server.
    pub async fn stop(self) {
        self.shutdown.trigger();
        for store in self.stores {
            store.stop().await;
        }
        self.meta.stop().await;
    }
}

fn make_meta(layout: &Layout<'_>, cluster: ClusterId) -> Outcome<Member> {
    clear(layout)?;
    let address = format!("127.0.0.1:{}", free_port(first_port(cluster))?);
    let made = cluster::create(cluster, &layout.meta(), Addresses { listen: address.clone(), advertise: address })?;
    made.admin.save(&layout.admin_credential()).map_err(Failure::new)?;
    Ok(made.first_meta)
}

/// Removes what a creation that was cut short has left.
fn clear(layout: &Layout<'_>) -> Outcome {
    let stores = (1..=STORES).map(|n| layout.store(n));
    for path in stores.chain([layout.meta()]) {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("{} cannot be cleared: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn open_meta(layout: &Layout<'_>) -> Outcome<Member> {
    let request = member::Request { role: Role::Meta, dir: layout.meta(), listen: "", advertise: "", token: None };
    member::open_or_join(request, || Ok(())).await
}

fn operator(layout: &Layout<'_>) -> Outcome<Operator> {
    let credential = Credential::load(&layout.admin_credential()).map_err(Failure::new)?;
    let transport = dial::transport(&credential.identity)?;
    Ok(Operator::new(Arc::new(MetaClient::new(transport, credential.metas))))
}

async fn start_store(
    layout: &Layout<'_>,
    cluster: ClusterId,
    n: usize,
    operator: &Operator,
    shutdown: Shutdown,
) -> Outcome<store::Running> {
    let dir = layout.store_state(n);
    let disk = layout.store_disk(n);
    fs::create_dir_all(&disk).or_fail(|| format!("{} cannot be made", disk.display()))?;
    let new = !dir.join("holdfast.toml").exists();
    let token = if new { Some(token(operator, Role::Store).await?) } else { None };
    let address = format!("127.0.0.1:{}", free_port(first_port(cluster))?);
    // A store may move: its port of last time is no better than another that is free.
    let request = member::Request { role: Role::Store, dir, listen: &address, advertise: "", token };
    let member = member::open_or_join(request, || Ok(())).await?;
    // One failure domain each: three copies go to three stores.
    let domain = store::Domain { host: format!("store-{n}"), zone: String::new() };
    store::Running::start(member, vec![disk], domain, shutdown).await
}

async fn token(operator: &Operator, role: Role) -> Outcome<JoinToken> {
    let grant = ClientGrant::default();
    match operator.ask("token", MetaRequest::CreateToken { role, grant, ttl_ms: TOKEN_TTL_MS }).await? {
        MetaBody::Token(text) => dial::parse_token(&text),
        _ => Err(OperatorError::Misfit.into()),
    }
}

async fn make_volume(operator: &Operator) -> Outcome {
    if operator.volumes().await?.iter().any(|(volume, _)| volume.name == VOLUME) {
        return Ok(());
    }
    let volume = NewVolume { owner: volume::me(), ..NewVolume::named(VOLUME) };
    operator.create_volume(volume).await?;
    Ok(())
}

async fn make_client(layout: &Layout<'_>, operator: &Operator) -> Outcome {
    let path = layout.client_credential();
    if path.exists() {
        return Ok(());
    }
    let token = token(operator, Role::Client).await?;
    join::save(&join::redeem(&token, Role::Client).await?, &path)
}

/// Closes the session of a killed predecessor: our lock shows that it is dead, so nobody has to wait for its session
/// to expire. Sessions of other credentials are refused, as they should be.
async fn close_sessions(layout: &Layout<'_>, operator: &Operator) -> Outcome {
    let status = operator.status().await?;
    if status.sessions.is_empty() {
        return Ok(());
    }
    let credential = Credential::load(&layout.client_credential()).map_err(Failure::new)?;
    let client = MetaClient::new(dial::transport(&credential.identity)?, credential.metas);
    for session in status.sessions {
        let answered = client.call(&MetaRequest::CloseSession { session: session.id }, Some(CLOSE_PATIENCE)).await;
        tracing::debug!(session = %session.id, answered = ?answered.map(|answered| answered.reply.body), "closed");
    }
    Ok(())
}

/// Where a cluster begins to look. A metadata server keeps its port for ever: several clusters on one machine, up one after
/// the other, are not to find the same one free.
fn first_port(cluster: ClusterId) -> u16 {
    PORT_FIRST + u16::from_le_bytes([cluster.0[0], cluster.0[1]]) % PORTS
}

fn free_port(from: u16) -> Outcome<u16> {
    let free = (from..from + 1000).find(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    free.ok_or_else(|| Failure::new(format!("no free UDP port on 127.0.0.1 from {from} on")))
}
