//! `holdfast probe`: whether a server or a mount answers, for those who start it anew when it does not.
//!
//! Asks as the server itself would, by the identity in its directory, and takes no lock. The plain question has nothing to do with the rest of
//! the cluster: a server is not to be killed for what others lack. A mount that waits for its cluster does not answer: by then it is not killed
//! but waited for, with whatever depends on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::cli::args::ProbeArgs;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::settings::absolute;
use crate::cli::{dial, member, mountpoint};
use crate::crypto::identity::Credential;
use crate::host::mountinfo::has_ended;
use crate::net::Transport;
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};
use crate::remote::store::StoreStub;
use crate::types::record::Role;
use crate::wire::store::StoreRequest;

/// Who asks every few seconds has no more.
const PATIENCE: Duration = Duration::from_secs(2);

/// # Errors
/// The server does not answer, or (`--ready`) knows of nobody who leads the cluster; or the directory is no server's. Or nothing of
/// ours is mounted there, or nobody answers for it.
pub fn run(args: &ProbeArgs) -> Outcome {
    match (&args.mount, &args.dir) {
        (Some(mountpoint), _) => mount(mountpoint),
        (None, Some(dir)) => server(dir, args.ready),
        (None, None) => Err(Failure::usage("name a server's directory or a mount: --dir DIR or --mount MNT")),
    }
}

fn mount(mountpoint: &Path) -> Outcome {
    let place = absolute(mountpoint)?;
    // A call may be held up for as long as the cluster is away; this process ends all the same.
    let (tell, answer) = mpsc::channel();
    let looking = place.clone();
    let look = move || {
        let looked = mountpoint::check_ours(&looking).and_then(|()| {
            let ended =
                || Failure::new(format!("the mount on {} has ended: unmount it and mount it again", looking.display()));
            if has_ended(&looking) { Err(ended()) } else { Ok(()) }
        });
        tell.send(looked)
    };
    thread::Builder::new().name("probe".into()).spawn(look).or_fail(|| "this host gives no thread".to_string())?;
    let looked = answer.recv_timeout(2 * PATIENCE);
    looked.unwrap_or_else(|_| Err(Failure::new(format!("the mount on {} does not answer", place.display()))))
}

fn server(dir: &Path, ready: bool) -> Outcome {
    let (credential, listen) = member::look(dir)?;
    let address = reached_at(listen).to_string();
    dial::small_runtime()?.block_on(async {
        let transport = dial::transport(&credential.identity)?;
        let asking = async {
            match credential.identity.role {
                Role::Store => store(transport, &credential, &address, ready).await,
                _ => meta(transport, vec![address.clone()], ready).await,
            }
        };
        let asked = tokio::time::timeout(2 * PATIENCE, asking).await;
        asked.unwrap_or_else(|_| Err(Failure::new(format!("{address} does not answer"))))
    })
}

async fn meta(transport: Arc<dyn Transport>, metas: Vec<String>, ready: bool) -> Outcome {
    let answered = MetaClient::new(transport, metas).call(&MetaRequest::Members, Some(PATIENCE)).await;
    match answered.or_fail(|| "the metadata server does not answer".to_string())?.reply.body {
        MetaBody::Members { leader: None, .. } if ready => Err(Failure::new("nobody leads the cluster")),
        MetaBody::Members { .. } => Ok(()),
        _ => Err(Failure::new("the metadata server's answer was not understood")),
    }
}

async fn store(transport: Arc<dyn Transport>, credential: &Credential, address: &str, ready: bool) -> Outcome {
    let nothing = StoreRequest::Has { ids: Vec::new() };
    let answered = StoreStub::new(transport.clone()).call(address, &nothing, Bytes::new(), PATIENCE).await;
    answered.or_fail(|| "the store does not answer".to_string())?;
    if ready { meta(transport, credential.metas.clone(), true).await } else { Ok(()) }
}

/// One that listens on every address is found on this host's own.
fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_nothing_of_ours_on_it_is_no_mount() {
        let dir = tempfile::tempdir().unwrap();
        let failure = mount(dir.path()).unwrap_err();
        assert!(failure.sentence().contains("no Holdfast volume is mounted"), "{failure:?}");
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_this_host() {
        for (listen, reached) in
            [("0.0.0.0:7400", "127.0.0.1:7400"), ("[::]:7400", "[::1]:7400"), ("10.0.0.1:7400", "10.0.0.1:7400")]
        {
            assert_eq!(reached_at(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
