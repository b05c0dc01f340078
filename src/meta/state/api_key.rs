//! Keys to the HTTP interface. Only hashes of secrets come here.

use super::error::StateError;
use super::schema::{ApiKeyRef, Table, api_key_key, api_key_name_key, numbers, unpack};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::api_key::ApiKey;
use crate::types::attr::Time;
use crate::types::error::FsError;

const KEYS_MAX: usize = 1024;

/// The same key made again is the same key.
pub(super) fn create(tx: &mut Tx<'_>, hash: &[u8; 32], key: ApiKey) -> Result<Outcome, StateError> {
    key.check().map_err(StateError::Refused)?;
    sweep(tx, key.created)?;
    let name_key = api_key_name_key(&key.name);
    if let Some(ApiKeyRef { hash: found }) = tx.get(&name_key)? {
        return if found == *hash { Ok(Outcome::Done) } else { Err(FsError::Exists.into()) };
    }
    if tx.contains(&api_key_key(hash))? {
        return Err(StateError::Refused("this key has another name already".into()));
    }
    if tx.scan_prefix(&numbers(Table::ApiKey, &[])).take(KEYS_MAX).count() == KEYS_MAX {
        return Err(StateError::Refused(format!("there are {KEYS_MAX} keys, and can be no more; delete some")));
    }
    tx.put(name_key, &ApiKeyRef { hash: *hash });
    tx.put(api_key_key(hash), &key);
    Ok(Outcome::Done)
}

/// Those that have expired give back their names.
fn sweep(tx: &mut Tx<'_>, now: Time) -> Result<(), StateError> {
    let mut expired = Vec::new();
    for pair in tx.scan_prefix(&numbers(Table::ApiKey, &[])).take(KEYS_MAX) {
        let (place, value) = pair?;
        let key: ApiKey = unpack(&value)?;
        if key.is_expired(now) {
            expired.push((place, api_key_name_key(&key.name)));
        }
    }
    for (place, name_key) in expired {
        tx.delete(place);
        tx.delete(name_key);
    }
    Ok(())
}

pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<Outcome, StateError> {
    let name_key = api_key_name_key(name);
    let Some(ApiKeyRef { hash }) = tx.get(&name_key)? else { return Err(FsError::NotFound.into()) };
    tx.delete(name_key);
    tx.delete(api_key_key(&hash));
    Ok(Outcome::Done)
}
