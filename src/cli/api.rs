//! `holdfast api`: the HTTP interface.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crate::admin::openapi;
use crate::admin::server::{ApiServer, TlsFiles};
use crate::cli::args::{ApiArgs, CommonArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::out::print_line;
use crate::cli::settings::{absolute, settings};
use crate::cli::{daemon, dial, operator};
use crate::config::layer::Flags;
use crate::config::roles::{ApiConfig, CommonConfig};
use crate::daemon::ready;
use crate::daemon::shutdown::Shutdown;
use crate::remote::meta::MetaClient;
use crate::remote::operator::Operator;

/// # Errors
/// The settings, the credential or the certificate cannot be used, the address is taken, or the server fails.
pub fn run(common: &CommonArgs, args: ApiArgs) -> Outcome {
    if args.openapi {
        return print_line(openapi::document());
    }
    let settings = settings(common, Flags::from(&args))?;
    let (common, config): (CommonConfig, ApiConfig) = (settings.section()?, settings.section()?);
    let (address, tls) = (address(&config.listen)?, tls_files(&config)?);
    let (_, credential) = operator::credential(&settings)?;
    daemon::begin(&common)?;
    dial::runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().or_fail(|| "signals cannot be handled".to_string())?;
        let transport = dial::transport(&credential.identity)?;
        let cluster = Operator::new(Arc::new(MetaClient::new(transport, credential.metas)));
        let server = ApiServer::bind(address, tls).map_err(Failure::new)?;
        ready::announce("api", credential.identity.id, server.url());
        let served = server.serve(cluster, shutdown).await;
        ready::stopping();
        served.map_err(Failure::new)
    })
}

fn address(listen: &str) -> Outcome<SocketAddr> {
    let found = listen.to_socket_addrs().or_fail(|| format!("`{listen}` is not an address to listen on"))?;
    found.into_iter().next().ok_or_else(|| Failure::new(format!("`{listen}` is no address of a host")))
}

fn tls_files(config: &ApiConfig) -> Outcome<Option<TlsFiles>> {
    match (config.tls_cert.as_os_str().is_empty(), config.tls_key.as_os_str().is_empty()) {
        (true, true) => Ok(None),
        (false, false) => {
            Ok(Some(TlsFiles { certificate: absolute(&config.tls_cert)?, key: absolute(&config.tls_key)? }))
        }
        _ => Err(Failure::usage("a certificate and its key go together: tls_cert and tls_key")),
    }
}
