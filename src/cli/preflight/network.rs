//! What a host needs of the network: ports that are free, and a way to the servers.

use std::io::ErrorKind;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::finding::Finding;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::{dial, map};
use crate::crypto::identity::Credential;
use crate::net::Transport;
use crate::net::knock::knock;
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};

/// For each server.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a server could listen here.
pub fn port(address: &str) -> Finding {
    let about = "port";
    let resolved = match address.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(resolved)) => resolved,
        _ => return Finding::missing(about, format!("{address} is not found"), "name an address of this host"),
    };
    match UdpSocket::bind(resolved) {
        Ok(_) => Finding::ok(about, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let mend = "choose another port, or end who has it (ss -ulpn)";
            Finding::missing(about, format!("somebody listens on {address} already"), mend)
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Finding::missing(
            about,
            format!("{address} is no address of this host"),
            "choose one that `ip address` lists",
        ),
        Err(error) => Finding::missing(about, format!("{address} cannot be listened on ({error})"), "choose another"),
    }
}

/// Whether servers answer: as a member, when there is a credential; stores too, which it is then told of.
///
/// # Errors
/// The credential cannot be used, or there is no socket to be had.
pub fn servers(named: &[String], credential: Option<&Path>) -> Outcome<Vec<Finding>> {
    let Some(path) = credential else { return Ok(named.iter().map(|server| knocked(server)).collect()) };
    let credential = Credential::load(path).or_fail(|| "the credential cannot be used".to_string())?;
    let metas = if named.is_empty() { credential.metas.clone() } else { named.to_vec() };
    let (mut found, stores) = dial::small_runtime()?.block_on(async {
        let transport = dial::transport(&credential.identity)?;
        let mut found = Vec::new();
        for meta in &metas {
            found.push(asked(&transport, meta).await);
        }
        let all = MetaClient::new(Arc::clone(&transport), metas);
        // Without an answer there is nothing to say of stores but what has been said.
        let map = map::fetch(&all, PATIENCE).await.ok();
        let stores = map.into_iter().flat_map(|map| map.stores).map(|store| store.address).collect::<Vec<_>>();
        Ok::<_, Failure>((found, stores))
    })?;
    found.extend(stores.iter().map(|store| knocked(store)));
    Ok(found)
}

async fn asked(transport: &Arc<dyn Transport>, meta: &str) -> Finding {
    let begun = Instant::now();
    let client = MetaClient::new(Arc::clone(transport), vec![meta.to_string()]);
    match client.call(&MetaRequest::Members, Some(PATIENCE)).await.map(|answered| answered.reply.body) {
        Ok(MetaBody::Members { leader: Some(_), .. }) => reached(meta, begun.elapsed()),
        Ok(MetaBody::Members { leader: None, .. }) => {
            let mend = "start enough metadata servers for a majority";
            Finding::missing("server", format!("{meta} answers, and nobody leads the cluster"), mend)
        }
        Ok(_) => Finding::missing("server", format!("{meta} was not understood"), "use the same version everywhere"),
        Err(error) => not_reached(meta, &error.to_string()),
    }
}

/// As somebody who is nobody.
fn knocked(server: &str) -> Finding {
    let resolved = match server.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(resolved)) => resolved,
        _ => return not_reached(server, "there is no such host"),
    };
    match knock(resolved, PATIENCE) {
        Ok(time) => reached(server, time),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => not_reached(server, "nobody listens there"),
        Err(error) if error.kind() == ErrorKind::TimedOut => not_reached(server, "no answer"),
        Err(error) => not_reached(server, &error.to_string()),
    }
}

fn reached(server: &str, time: Duration) -> Finding {
    Finding::ok("server", format!("{server} answers, in {:.1} ms", time.as_secs_f64() * 1000.0))
}

fn not_reached(server: &str, why: &str) -> Finding {
    let mend = "start it, and let UDP to that port through every firewall between";
    Finding::missing("server", format!("{server} is not reached ({why})"), mend)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_from_one_that_is_elsewhere() {
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap().to_string();
        assert!(port(&address).says.contains("already"));
        assert!(knocked(&address).says.contains("no answer") || knocked(&address).state == State::Missing);
        drop(held);
        assert_eq!(port(&address).state, State::Ok);
        assert!(port("192.0.2.1:7400").says.contains("no address of this host"));
        assert!(port("no.such.host.invalid:1").says.contains("not found"));
        assert!(knocked(&address).says.contains("nobody listens"));
    }

    #[test]
    fn a_credential_that_cannot_be_used_is_an_error() {
        assert!(servers(&[], Some(Path::new("/no/such/file"))).is_err());
        assert_eq!(servers(&[], None).unwrap(), Vec::new());
    }
}
