//! One-time tokens and the credentials they turn into. Only hashes of secrets come here.

use super::error::StateError;
use super::schema::{Credential, Ids, Table, Token, TokenUse, credential_key, numbers, single_key, token_key, unpack};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::attr::Time;
use crate::types::record::{ClientGrant, Role};

/// Tokens that one use looks at to remove the expired among them.
const SWEEP_MAX: usize = 64;

pub(super) fn create(
    tx: &mut Tx<'_>,
    hash: &[u8; 32],
    role: Role,
    grant: ClientGrant,
    expires: Time,
) -> Result<Outcome, StateError> {
    if tx.contains(&token_key(hash))? {
        return Err(StateError::Refused("this token exists already".into()));
    }
    tx.put(token_key(hash), &Token { role, grant, expires, used: None });
    Ok(Outcome::Done)
}

/// Admits a joiner and gives it the next id of its role; or the same as before, to one that asks again.
pub(super) fn spend(
    tx: &mut Tx<'_>,
    hash: &[u8; 32],
    key: [u8; 32],
    role: Role,
    address: String,
    now: Time,
) -> Result<Outcome, StateError> {
    let refuse = |sentence: &str| Err(StateError::Refused(sentence.into()));
    let Some(mut token) = tx.get::<Token>(&token_key(hash))? else {
        return refuse("this token is not known, or has expired");
    };
    if token.expires <= now {
        return refuse("this token has expired");
    }
    if token.role != role {
        return refuse("this token is for another role");
    }
    let id = match token.used {
        Some(used) if used.key != key => return refuse("this token was used already"),
        Some(used) => used.id,
        None => next_id(tx, role)?,
    };
    token.used = Some(TokenUse { key, id });
    tx.put(token_key(hash), &token);
    let grant = token.grant;
    tx.put(credential_key(role, id), &Credential { role, id, grant: grant.clone(), address });
    sweep(tx, now)?;
    Ok(Outcome::Member { id, grant })
}

fn next_id(tx: &mut Tx<'_>, role: Role) -> Result<u64, StateError> {
    let mut ids: Ids = tx.single(Table::Ids)?;
    let next = match role {
        Role::Meta => &mut ids.meta,
        Role::Store => &mut ids.store,
        Role::Client => &mut ids.client,
        Role::Admin => &mut ids.admin,
    };
    let id = *next;
    *next += 1;
    tx.put(single_key(Table::Ids), &ids);
    Ok(id)
}

fn sweep(tx: &mut Tx<'_>, now: Time) -> Result<(), StateError> {
    let mut expired = Vec::new();
    for pair in tx.scan_prefix(&numbers(Table::Token, &[])).take(SWEEP_MAX) {
        let (key, value) = pair?;
        if unpack::<Token>(&value)?.expires <= now {
            expired.push(key);
        }
    }
    expired.into_iter().for_each(|key| tx.delete(key));
    Ok(())
}
