//! `holdfast token`: one-time tokens to join with. The token is the only thing on standard output, so that it can be
//! sent to a file.

use crate::cli::args::{CommonArgs, RoleArg, TokenArgs, TokenCommand, TokenCreateArgs};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::operator;
use crate::cli::out::print_line;
use crate::remote::meta::{MetaBody, MetaRequest};
use crate::remote::operator::OperatorError;
use crate::types::record::ClientGrant;

/// # Errors
/// Flags that do not fit the role, or the cluster refused or did not answer.
pub fn run(common: &CommonArgs, args: TokenArgs) -> Outcome {
    let TokenCommand::Create(args) = args.command;
    let request = request(&args)?;
    operator::run(common, &args.admin, |cluster| async move {
        match cluster.ask("token", request).await? {
            MetaBody::Token(token) => print_line(token),
            _ => Err(OperatorError::Misfit.into()),
        }
    })
}

fn request(args: &TokenCreateArgs) -> Outcome<MetaRequest> {
    if args.role != RoleArg::Client && (args.read_only || !args.volumes.is_empty()) {
        return Err(Failure::usage("--volume and --read-only are for tokens of clients"));
    }
    if args.ttl.0.is_zero() {
        return Err(Failure::usage("a token needs some time: --ttl 0 is none"));
    }
    Ok(MetaRequest::CreateToken {
        role: args.role.into(),
        grant: ClientGrant { volumes: args.volumes.clone(), read_only: args.read_only },
        ttl_ms: args.ttl.millis(),
    })
}
