//! A server's directory as the command line keeps it: who it is, and where it serves.
//!
//! ```text
//! holdfast.toml     format, kind, cluster, member (host::data_dir)
//! LOCK              held while the process lives
//! member.toml       the addresses it was made with
//! identity.pem      certificate, authority's certificate, key, metadata servers; mode 0600
//! authority.key     metadata servers only: the authority's key, PKCS#8 DER; mode 0600
//! ```
//!
//! A member is made once, by `cluster init` or by a token, and found again at every start. Making it checks everything
//! it can before the token is spent.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::dial::{self, Joined};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::config::value::HostPort;
use crate::crypto::ca::ClusterAuthority;
use crate::crypto::identity::Credential;
use crate::crypto::token::JoinToken;
use crate::host::data_dir::DataDir;
use crate::host::file::{write_atomically, write_private};
use crate::host::space::free_bytes_for_new;
use crate::types::digest::fingerprint;
use crate::types::limits::META_RESERVE_BYTES;
use crate::types::record::Role;

const IDENTITY_FILE: &str = "identity.pem";
const AUTHORITY_FILE: &str = "authority.key";
const ADDRESS_FILE: &str = "member.toml";
/// Of a disk for a metadata server: what is kept free, and the first of log and index.
const META_ROOM_BYTES: u64 = META_RESERVE_BYTES + (32 << 20);

/// Where a server listens, and what others are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub listen: String,
    pub advertise: String,
}

/// A server that is a member of its cluster; its directory is locked.
pub struct Member {
    pub dir: DataDir,
    pub credential: Credential,
    pub listen: SocketAddr,
    /// `host:port`.
    pub advertise: String,
}

/// What a server is told about itself at its start.
pub struct Request<'a> {
    pub role: Role,
    pub dir: PathBuf,
    /// As given by the settings; empty is what it was made with.
    pub listen: &'a str,
    pub advertise: &'a str,
    pub token: Option<JoinToken>,
}

impl Request<'_> {
    fn kind(&self) -> &'static str {
        kind(self.role)
    }

    /// The addresses of a new member.
    ///
    /// # Errors
    /// None was given, or others could not use it.
    pub fn addresses(&self) -> Outcome<Addresses> {
        if self.listen.is_empty() {
            return Err(Failure::usage(format!("a new {} needs --listen ADDR", self.kind())));
        }
        let listen: HostPort = self.listen.parse().map_err(Failure::usage)?;
        let advertise = if self.advertise.is_empty() { self.listen } else { self.advertise };
        let advertise: HostPort = advertise.parse().map_err(Failure::usage)?;
        if resolve(advertise.as_str())?.ip().is_unspecified() {
            return Err(Failure::usage(format!(
                "others cannot reach {advertise}: listen on one address, or say with --advertise which one they use"
            )));
        }
        Ok(Addresses { listen: listen.to_string(), advertise: advertise.to_string() })
    }
}

/// Opens the member's directory, or joins the cluster of the token and makes it. `check`: what else has to hold before the token
/// is spent.
///
/// # Errors
/// The directory is of another cluster, kind or format, or is held; there is neither a member nor a token; an address
/// is not to be had; the cluster refuses.
pub async fn open_or_join(request: Request<'_>, check: impl FnOnce() -> Outcome) -> Outcome<Member> {
    if !DataDir::is_vacant(&request.dir).map_err(Failure::new)? {
        return open(&request);
    }
    let Some(token) = &request.token else {
        let (dir, kind) = (request.dir.display(), request.kind());
        let init = if request.role == Role::Meta { ", or make a cluster with `holdfast cluster init`" } else { "" };
        return Err(Failure::new(format!(
            "{dir} is not the directory of a {kind} yet: bring a token (--token-file FILE, $HOLDFAST_TOKEN){init}"
        )));
    };
    let addresses = request.addresses()?;
    check_listen(&addresses.listen)?;
    check()?;
    let made = make_dir(&request.dir)?;
    match dial::join(token, request.role, &addresses.advertise).await {
        Ok(joined) => create(&request.dir, &joined, addresses),
        Err(failure) => {
            // Nothing happened: leave nothing. Fails, rightly, unless the directory is empty.
            if made {
                let _ = std::fs::remove_dir(&request.dir);
            }
            Err(failure)
        }
    }
}

/// Writes the directory of a member that was just made.
///
/// # Errors
/// The directory is not empty, or cannot be written.
pub fn create(path: &Path, joined: &Joined, addresses: Addresses) -> Outcome<Member> {
    let identity = &joined.credential.identity;
    let dir = DataDir::create(path, kind(identity.role), identity.cluster, identity.id).map_err(Failure::new)?;
    let writing = || format!("{} cannot be written", path.display());
    joined.credential.save(&path.join(IDENTITY_FILE)).or_fail(writing)?;
    if let Some(key) = &joined.ca_key {
        write_private(&path.join(AUTHORITY_FILE), key).or_fail(writing)?;
    }
    let text = toml::to_string(&addresses).or_fail(writing)?;
    write_atomically(&path.join(ADDRESS_FILE), text.as_bytes()).or_fail(writing)?;
    let listen = resolve(&addresses.listen)?;
    Ok(Member { dir, credential: joined.credential.clone(), listen, advertise: addresses.advertise })
}

fn open(request: &Request<'_>) -> Outcome<Member> {
    let dir = DataDir::open(&request.dir, request.kind(), None).map_err(Failure::new)?;
    let credential = Credential::load(&dir.path().join(IDENTITY_FILE)).map_err(Failure::new)?;
    let identity = &credential.identity;
    if (identity.cluster, identity.id) != (dir.cluster(), dir.member()) || identity.role != request.role {
        return Err(Failure::new(format!("{} holds the identity of another member", dir.path().display())));
    }
    if request.token.as_ref().is_some_and(|token| token.ca_fingerprint != fingerprint(&identity.ca_der)) {
        return Err(Failure::new(format!(
            "{} belongs to cluster {}, and the token is for another",
            dir.path().display(),
            dir.cluster()
        )));
    }
    let made = made_with(dir.path())?;
    let listen = if request.listen.is_empty() { &made.listen } else { request.listen };
    let advertise = match (request.advertise, request.role) {
        // The Raft group knows it by that name, wherever it listens.
        ("", Role::Meta) => made.advertise.clone(),
        ("", _) if listen == made.listen => made.advertise.clone(),
        ("", _) => listen.to_string(),
        (given, _) => given.to_string(),
    };
    if request.role == Role::Meta && advertise != made.advertise {
        let known = made.advertise;
        return Err(Failure::new(format!(
            "this metadata server is known to its cluster as {known}, not as {advertise}"
        )));
    }
    Ok(Member { dir, credential, listen: resolve(listen)?, advertise })
}

/// Who the server of a directory is, and where it listens unless it was told otherwise since; whether it runs or not.
///
/// # Errors
/// It is no server's directory.
pub fn look(dir: &Path) -> Outcome<(Credential, SocketAddr)> {
    let credential = Credential::load(&dir.join(IDENTITY_FILE)).map_err(Failure::new)?;
    if !matches!(credential.identity.role, Role::Meta | Role::Store) {
        return Err(Failure::new(format!("{} is not the directory of a server", dir.display())));
    }
    Ok((credential, resolve(&made_with(dir)?.listen)?))
}

/// The authority that the metadata server of a directory keeps, and that server's own credential; whether it runs or not.
///
/// # Errors
/// It is no directory of a metadata server.
pub fn authority_of(dir: &Path) -> Outcome<(ClusterAuthority, Credential)> {
    let (credential, _) = look(dir)?;
    Ok((authority(dir, &credential)?, credential))
}

fn authority(dir: &Path, credential: &Credential) -> Outcome<ClusterAuthority> {
    let path = dir.join(AUTHORITY_FILE);
    let key = std::fs::read(&path).or_fail(|| path.display().to_string())?;
    ClusterAuthority::from_parts(&credential.identity.ca_der, &key).or_fail(|| path.display().to_string())
}

fn made_with(dir: &Path) -> Outcome<Addresses> {
    let file = dir.join(ADDRESS_FILE);
    let text = std::fs::read_to_string(&file).or_fail(|| file.display().to_string())?;
    toml::from_str(&text).or_fail(|| file.display().to_string())
}

impl Member {
    /// The authority, which metadata servers keep.
    ///
    /// # Errors
    /// The key is not there or does not fit.
    pub fn authority(&self) -> Outcome<ClusterAuthority> {
        authority(self.dir.path(), &self.credential)
    }
}

/// An address to listen on, as a socket has it.
///
/// # Errors
/// It is no address, or a name that does not resolve.
pub fn resolve(address: &str) -> Outcome<SocketAddr> {
    let found = address.to_socket_addrs().or_fail(|| format!("the address {address} cannot be used"))?.next();
    found.ok_or_else(|| Failure::new(format!("the address {address} does not exist")))
}

/// That the address can be listened on, found out before anything is changed.
///
/// # Errors
/// It is taken, or not of this host.
pub fn check_listen(address: &str) -> Outcome {
    let socket = UdpSocket::bind(resolve(address)?).map(drop);
    socket.or_fail(|| format!("cannot listen on {address}"))
}

/// That a new metadata server has room in `dir`, found out before anything is made. With less it takes no changes, and its index
/// does not outlive the first.
///
/// # Errors
/// It has not, or there is no telling.
pub fn check_room(dir: &Path) -> Outcome {
    let free = free_bytes_for_new(dir).or_fail(|| dir.display().to_string())?;
    if free >= META_ROOM_BYTES {
        return Ok(());
    }
    let (free, needs) = (free >> 10, META_ROOM_BYTES >> 20);
    Err(Failure::new(format!("{} has {free} KiB free, and a new metadata server needs {needs} MiB", dir.display())))
}

/// `true` when it was not there.
fn make_dir(dir: &Path) -> Outcome<bool> {
    use std::os::unix::fs::DirBuilderExt;
    let absent = !dir.exists();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.or_fail(|| format!("{} cannot be made", dir.display()))?;
    Ok(absent)
}

fn kind(role: Role) -> &'static str {
    match role {
        Role::Meta => "meta",
        Role::Store => "store",
        Role::Client => "client",
        Role::Admin => "admin",
    }
}
