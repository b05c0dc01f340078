//! Who makes a request, and what they may.
//!
//! A key comes as `Authorization: Bearer hfk1.…`. The cluster is asked for it by its hash, and what it says is gone by for a few
//! seconds: so long may a key that was deleted still be of use.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Shared;
use super::problem::Problem;
use crate::crypto::api_secret::ApiSecret;
use crate::remote::operator::{Operator, OperatorError};
use crate::types::api_key::{ApiKey, ApiRole};

const KNOWN_FOR: Duration = Duration::from_secs(5);
/// While the cluster is away.
const TRUSTED_FOR: Duration = Duration::from_secs(600);
/// Wrong keys that are remembered: beyond it somebody is guessing.
const BAD_MAX: usize = 4096;
/// The leader is not asked for more at a time, whoever knocks.
const CHECKS_MAX: usize = 8;
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// Who makes the request.
pub struct Caller(ApiKey);

/// What the cluster said of keys a moment ago, by the hash of their secret. Keys that are good are kept apart: nobody who
/// guesses drives them out, or stands before them.
pub struct Keys {
    good: Mutex<HashMap<[u8; 32], (ApiKey, Instant)>>,
    bad: Mutex<HashMap<[u8; 32], Instant>>,
    checks: Semaphore,
    strangers: Semaphore,
}

impl Default for Keys {
    fn default() -> Keys {
        let (checks, strangers) = (Semaphore::new(CHECKS_MAX), Semaphore::new(CHECKS_MAX));
        Keys { good: Mutex::default(), bad: Mutex::default(), checks, strangers }
    }
}

impl Keys {
    /// `None`: the cluster knows no such key, or it has expired.
    async fn find(&self, cluster: &Operator, secret: &ApiSecret) -> Result<Option<ApiKey>, Problem> {
        let hash = secret.hash();
        let before = self.good.lock().get(&hash).cloned();
        if let Some((key, _)) = before.as_ref().filter(|(_, asked)| asked.elapsed() < KNOWN_FOR) {
            return Ok(Some(key.clone()));
        }
        if self.bad.lock().get(&hash).is_some_and(|asked| asked.elapsed() < KNOWN_FOR) {
            return Ok(None);
        }
        let turns = if before.is_some() { &self.checks } else { &self.strangers };
        let turn = tokio::time::timeout(TURN_PATIENCE, turns.acquire()).await;
        let _turn = turn.map_err(|_| Problem::unavailable("too many keys are being checked"))?;
        match cluster.check_key(hash).await {
            Ok(Some(key)) => {
                self.good.lock().insert(hash, (key.clone(), Instant::now()));
                Ok(Some(key))
            }
            Ok(None) => {
                self.note_bad(hash);
                Ok(None)
            }
            // Whoever was known goes on being told that the cluster is away.
            Err(OperatorError::Away(_)) => match before.filter(|(_, asked)| asked.elapsed() < TRUSTED_FOR) {
                Some((key, _)) => Ok(Some(key)),
                None => Err(Problem::unavailable("the cluster does not answer: no key can be checked")),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn note_bad(&self, hash: [u8; 32]) {
        self.good.lock().remove(&hash);
        let mut bad = self.bad.lock();
        if bad.len() >= BAD_MAX {
            bad.clear();
        }
        bad.insert(hash, Instant::now());
    }
}

impl Caller {
    /// # Errors
    /// The key's role is below this one.
    pub fn require(&self, role: ApiRole) -> Result<(), Problem> {
        if self.0.role >= role {
            return Ok(());
        }
        let (name, has, needed) = (&self.0.name, self.0.role.name(), role.name());
        Err(Problem::forbidden(format!("key {name} is a {has}'s; this takes an {needed}'s")))
    }

    /// # Errors
    /// The key is for some volumes only, and this is about all of the cluster.
    pub fn require_all(&self) -> Result<(), Problem> {
        if self.0.volumes.is_empty() {
            return Ok(());
        }
        Err(Problem::forbidden(format!("key {} is for some volumes only, and this is about all", self.0.name)))
    }

    pub fn sees(&self, volume: &str) -> bool {
        self.0.sees(volume)
    }

    /// # Errors
    /// As if there were none: whoever may not see a volume is not told whether there is one.
    pub fn require_volume(&self, volume: &str) -> Result<(), Problem> {
        if self.sees(volume) { Ok(()) } else { Err(Problem::not_found(format!("there is no volume {volume}"))) }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Caller, Problem> {
        let secret = secret_of(parts)?;
        match shared.keys.find(&shared.cluster, &secret).await {
            Ok(Some(key)) => Ok(Caller(key)),
            Ok(None) => Err(Problem::unauthenticated("the cluster does not know this key, or it has expired")),
            Err(problem) => Err(problem),
        }
    }
}

fn secret_of(parts: &Parts) -> Result<ApiSecret, Problem> {
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| {
        Problem::unauthenticated("a key is needed: `Authorization: Bearer KEY`; `holdfast key create` makes one")
    })?;
    let (scheme, text) = header.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::unauthenticated("the key is to come as `Authorization: Bearer KEY`"));
    }
    text.parse().map_err(|error: crate::crypto::api_secret::NotAKey| Problem::unauthenticated(error.to_string()))
}
