//! Keys to the HTTP interface: who has one may do what its role says, on the volumes it names. Pure.

use rkyv::{Archive, Deserialize, Serialize};

use super::attr::Time;

const NAME_BYTES_MAX: usize = 64;
const VOLUMES_MAX: usize = 64;

/// What the holder of a key may do; each may do what those before it may.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
)]
#[serde(rename_all = "lowercase")]
pub enum ApiRole {
    /// Look at everything.
    Viewer,
    /// Make, change and delete volumes.
    Operator,
    /// Make tokens to join with.
    Admin,
}

/// What the cluster knows of a key: all but its secret.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What it is called, to tell it from others and to take it back by.
    pub name: String,
    pub role: ApiRole,
    /// The only volumes its holder sees; empty means all, and the rest of the cluster.
    pub volumes: Vec<String>,
    pub created: Time,
    /// It is of no use from then on; `None` is never.
    pub expires: Option<Time>,
}

impl ApiRole {
    pub fn name(self) -> &'static str {
        match self {
            ApiRole::Viewer => "viewer",
            ApiRole::Operator => "operator",
            ApiRole::Admin => "admin",
        }
    }
}

impl ApiKey {
    /// # Errors
    /// One sentence saying what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(may) {
            return Err(format!(
                "{:?} is not a key's name: use at most {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'",
                self.name
            ));
        }
        if self.volumes.len() > VOLUMES_MAX {
            return Err(format!("a key is for at most {VOLUMES_MAX} volumes, or for all"));
        }
        if self.role == ApiRole::Admin && !self.volumes.is_empty() {
            return Err("an admin's key is for all volumes: its holder could let itself in to any".into());
        }
        Ok(())
    }

    pub fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether its holder may know of a volume.
    pub fn sees(&self, volume: &str) -> bool {
        self.volumes.is_empty() || self.volumes.iter().any(|name| name == volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, role: ApiRole, volumes: &[&str]) -> ApiKey {
        let volumes = volumes.iter().map(ToString::to_string).collect();
        ApiKey { name: name.into(), role, volumes, created: Time::default(), expires: None }
    }

    #[test]
    fn names_and_volumes_are_checked() {
        assert_eq!(key("ci.build-1", ApiRole::Operator, &["www"]).check(), Ok(()));
        assert!(key("", ApiRole::Viewer, &[]).check().is_err());
        assert!(key("a b", ApiRole::Viewer, &[]).check().is_err());
        assert!(key(&"x".repeat(NAME_BYTES_MAX + 1), ApiRole::Viewer, &[]).check().is_err());
        assert!(key("a", ApiRole::Admin, &["www"]).check().is_err());
        assert!(key("a", ApiRole::Viewer, &["v"; VOLUMES_MAX + 1]).check().is_err());
    }

    #[test]
    fn it_sees_what_it_names() {
        let narrow = key("a", ApiRole::Viewer, &["www"]);
        assert!(narrow.sees("www") && !narrow.sees("db"));
        assert!(key("a", ApiRole::Viewer, &[]).sees("db"));
    }

    #[test]
    fn it_ends_when_it_says() {
        let at = |sec| Time { sec, nsec: 0 };
        let key = ApiKey { expires: Some(at(10)), ..key("a", ApiRole::Viewer, &[]) };
        assert!(!key.is_expired(at(9)) && key.is_expired(at(10)));
    }
}
