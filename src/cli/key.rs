//! `holdfast key`: keys to the HTTP interface. A new key is the only thing on standard output, so that it can be sent to a
//! file; the cluster cannot tell it again.

use serde_json::{Value, json};

use crate::cli::args::{ApiRoleArg, CommonArgs, KeyArgs, KeyCommand, KeyCreateArgs};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::operator;
use crate::cli::out::{print, print_json, print_line};
use crate::cli::table::Table;
use crate::config::value::Span;
use crate::crypto::api_secret::ApiSecret;
use crate::host::clock;
use crate::remote::meta::{MetaBody, MetaRequest};
use crate::remote::operator::{Operator, OperatorError};
use crate::types::api_key::{ApiKey, ApiRole};
use crate::types::attr::Time;

/// # Errors
/// Flags that do not fit, or the cluster refused or did not answer.
pub fn run(common: &CommonArgs, args: KeyArgs) -> Outcome {
    match args.command {
        KeyCommand::Create(args) => {
            if args.ttl.is_some_and(|ttl| ttl.0.is_zero()) {
                return Err(Failure::usage("a key needs some time: --ttl 0 is none; without --ttl it never expires"));
            }
            let KeyCreateArgs { name, role, volumes, ttl, admin } = args;
            operator::run(common, &admin, |cluster| create(cluster, name, role.into(), volumes, ttl))
        }
        KeyCommand::List { json, admin } => operator::run(common, &admin, |cluster| list(cluster, json)),
        KeyCommand::Delete { name, admin } => operator::run(common, &admin, |cluster| delete(cluster, name)),
    }
}

async fn create(cluster: Operator, name: String, role: ApiRole, volumes: Vec<String>, ttl: Option<Span>) -> Outcome {
    let (secret, subject) = (ApiSecret::create(), format!("key {name}"));
    let ttl_ms = ttl.map(Span::millis);
    let request = MetaRequest::CreateApiKey { hash: secret.hash(), name, role, volumes, ttl_ms };
    match cluster.done(&subject, request).await {
        Err(error @ OperatorError::Away(_)) => {
            Err(Failure::new(format!("{error}; {subject} may have been made: delete it before you make it again")))
        }
        made => Ok(made?),
    }?;
    print_line(secret.encode())
}

async fn list(cluster: Operator, as_json: bool) -> Outcome {
    let MetaBody::ApiKeys(keys) = cluster.ask("list of keys", MetaRequest::ListApiKeys).await? else {
        return Err(OperatorError::Misfit.into());
    };
    if as_json {
        return print_json(&Value::from_iter(keys.iter().map(to_json)));
    }
    let mut table = Table::new(&["KEY", "ROLE", "VOLUMES", "STATE"]);
    for key in &keys {
        let volumes = if key.volumes.is_empty() { "all".to_string() } else { key.volumes.join(",") };
        table.row([key.name.clone(), key.role.name().to_string(), volumes, state(key, clock::now())]);
    }
    print(table)
}

/// Seconds since 1970, as `date -d @…` takes them.
fn to_json(key: &ApiKey) -> Value {
    json!({
        "name": key.name,
        "role": key.role,
        "volumes": key.volumes,
        "created": key.created.sec,
        "expires": key.expires.map(|expires| expires.sec),
    })
}

fn state(key: &ApiKey, now: Time) -> String {
    match key.expires {
        None => "never expires".to_string(),
        Some(_) if key.is_expired(now) => "expired".to_string(),
        Some(expires) => format!("expires in {} h", (expires.sec.saturating_sub(now.sec)) / 3600),
    }
}

async fn delete(cluster: Operator, name: String) -> Outcome {
    cluster.delete(&format!("key {name}"), MetaRequest::DeleteApiKey { name: name.clone() }).await?;
    print_line(format_args!("key {name} deleted"))
}

impl From<ApiRoleArg> for ApiRole {
    fn from(role: ApiRoleArg) -> ApiRole {
        match role {
            ApiRoleArg::Viewer => ApiRole::Viewer,
            ApiRoleArg::Operator => ApiRole::Operator,
            ApiRoleArg::Admin => ApiRole::Admin,
        }
    }
}
