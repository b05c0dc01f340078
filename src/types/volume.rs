//! Volumes: what one is made of, and what of it can be changed later. Pure; what is wrong with one is said in a sentence.

use std::collections::BTreeMap;
use std::time::Duration;

use rkyv::with::AsVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::attr::Owner;
use super::id::{TreeId, VolumeId};
use super::limits::{CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, REPLICAS_DEFAULT, REPLICAS_MAX};

const NAME_BYTES_MAX: usize = 128;
const LABELS_MAX: usize = 32;
/// Keys and values are as long as those of Kubernetes' labels, prefix and all, or of its names.
const LABEL_KEY_BYTES_MAX: usize = 317;
const LABEL_VALUE_BYTES_MAX: usize = 253;
/// Permissions with set-id and sticky.
const MODE_BITS: u32 = 0o7777;
/// Of a new root.
pub const ROOT_MODE_DEFAULT: u32 = 0o755;

/// What people and programs have written on a volume, by key. In archives it is a list: an archived tree is checked node below
/// node, as deep as whoever made it likes.
pub type Labels = BTreeMap<String, String>;

/// A volume: its name and policy.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub id: VolumeId,
    pub name: String,
    pub tree: TreeId,
    pub policy: VolumePolicy,
    #[rkyv(with = AsVec)]
    pub labels: Labels,
}

/// On how many hosts a volume is mounted at once, and for what. Kubernetes' words: ReadWriteMany, ReadWriteOnce, ReadOnlyMany and
/// ReadWriteOncePod; `fenced` is ReadWriteOnce for who takes a volume over without asking.
#[derive(
    Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
pub enum Access {
    /// On any number; what one did, the next call on another sees.
    #[default]
    #[serde(rename = "rwx")]
    Many,
    /// On one, whose kernel may then keep what it likes.
    #[serde(rename = "rwo")]
    One,
    /// On any number, and nobody changes anything.
    #[serde(rename = "rox")]
    Readers,
    /// On one, which is whoever asked last: who had it before is shut out.
    #[serde(rename = "fenced")]
    Fenced,
    /// On one, for one container there: who mounts it for containers gives it to no second.
    #[serde(rename = "rwop")]
    Container,
}

impl Access {
    pub fn name(self) -> &'static str {
        match self {
            Access::Many => "rwx",
            Access::One => "rwo",
            Access::Readers => "rox",
            Access::Fenced => "fenced",
            Access::Container => "rwop",
        }
    }

    /// One host at a time has it to itself.
    pub fn is_for_one(self) -> bool {
        matches!(self, Access::One | Access::Fenced | Access::Container)
    }
}

#[derive(Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct VolumePolicy {
    pub replicas: u8,
    pub chunk_bytes: u32,
    /// 0 is no quota.
    pub quota_bytes: u64,
    pub quota_inodes: u64,
    /// What blocked I/O does while the cluster is away: wait (0), or fail with EIO after this many milliseconds. A mount goes by
    /// what was so when it was made.
    pub patience_ms: u64,
    pub access: Access,
}

/// What a volume holds, kept exactly by the state machine.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    pub inodes: u64,
    /// Allocated bytes of all files (what `du` adds up to), before replication and deduplication.
    pub allocated_bytes: u64,
}

/// A volume that is to be made, with an empty root.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    pub name: String,
    pub policy: VolumePolicy,
    #[rkyv(with = AsVec)]
    pub labels: Labels,
    /// Of the root, as are the permissions.
    pub owner: Owner,
    pub mode: u32,
}

/// What is to be different about a volume. `None` stays as it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeChange {
    pub quota_bytes: Option<u64>,
    pub quota_inodes: Option<u64>,
    pub patience_ms: Option<u64>,
    pub access: Option<Access>,
    /// Labels that are set, or removed (`None`). The others stay.
    #[rkyv(with = AsVec)]
    pub labels: BTreeMap<String, Option<String>>,
}

impl VolumePolicy {
    /// `None` is for ever.
    pub fn patience(&self) -> Option<Duration> {
        (self.patience_ms > 0).then(|| Duration::from_millis(self.patience_ms))
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return Err(format!("a volume has 1 to {REPLICAS_MAX} copies, not {}", self.replicas));
        }
        let chunk_bytes = self.chunk_bytes;
        if !chunk_bytes.is_power_of_two() || !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_bytes) {
            return Err(format!(
                "the chunk size is a power of two from {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX} bytes, not {chunk_bytes}"
            ));
        }
        Ok(())
    }
}

impl Default for VolumePolicy {
    fn default() -> Self {
        VolumePolicy {
            replicas: REPLICAS_DEFAULT,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            quota_bytes: 0,
            quota_inodes: 0,
            patience_ms: 0,
            access: Access::Many,
        }
    }
}

impl NewVolume {
    /// One of that name, without bounds, for root.
    pub fn named(name: impl Into<String>) -> NewVolume {
        NewVolume {
            name: name.into(),
            policy: VolumePolicy::default(),
            labels: Labels::new(),
            owner: Owner::default(),
            mode: ROOT_MODE_DEFAULT,
        }
    }

    /// # Errors
    /// One sentence saying what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        self.policy.check()?;
        if self.mode & !MODE_BITS != 0 {
            return Err(format!("{:o} is not a mode: permissions are at most 7777", self.mode));
        }
        check_labels(&self.labels)
    }
}

impl Volume {
    /// Who had it mounted can go on with that one.
    pub fn is_like(&self, other: &Volume) -> bool {
        self.id == other.id && self.policy.access == other.policy.access
    }

    /// # Errors
    /// One sentence saying what would be wrong with the volume then. It is as it was.
    pub fn change(&mut self, change: VolumeChange) -> Result<(), String> {
        let mut labels = self.labels.clone();
        for (key, value) in change.labels {
            match value {
                Some(value) => labels.insert(key, value),
                None => labels.remove(&key),
            };
        }
        check_labels(&labels)?;
        self.labels = labels;
        let policy = &mut self.policy;
        policy.quota_bytes = change.quota_bytes.unwrap_or(policy.quota_bytes);
        policy.quota_inodes = change.quota_inodes.unwrap_or(policy.quota_inodes);
        policy.patience_ms = change.patience_ms.unwrap_or(policy.patience_ms);
        policy.access = change.access.unwrap_or(policy.access);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= NAME_BYTES_MAX && name.bytes().all(may) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not a volume name: use at most {NAME_BYTES_MAX} letters, digits, '.', '_' and '-', and begin with a \
         letter or digit"
    ))
}

fn check_labels(labels: &Labels) -> Result<(), String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("a volume has at most {LABELS_MAX} labels"));
    }
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    for (key, value) in labels {
        if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX || !key.bytes().all(may) {
            return Err(format!(
                "{key:?} is not a label's key: use at most {LABEL_KEY_BYTES_MAX} letters, digits, '.', '_', '-' and '/'"
            ));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(format!(
                "the value of label {key} is longer than {LABEL_VALUE_BYTES_MAX} bytes, or has control characters"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(policy: VolumePolicy) -> NewVolume {
        NewVolume { policy, ..NewVolume::named("www") }
    }

    fn volume() -> Volume {
        let NewVolume { name, policy, .. } = NewVolume::named("www");
        Volume { id: VolumeId(1), name, tree: TreeId(1), policy, labels: Labels::from([("tier".into(), "web".into())]) }
    }

    #[test]
    fn names_are_checked() {
        let long = "x".repeat(NAME_BYTES_MAX);
        for good in ["main", "1", "a.b_c-d", &long] {
            assert_eq!(NewVolume::named(good).check(), Ok(()), "{good:?}");
        }
        for bad in ["", "a/b", "-x", ".x", "a b", "\u{fc}", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(NewVolume::named(bad).check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn policies_and_modes_are_checked() {
        for bad in [
            VolumePolicy { replicas: 0, ..VolumePolicy::default() },
            VolumePolicy { replicas: REPLICAS_MAX + 1, ..VolumePolicy::default() },
            VolumePolicy { chunk_bytes: 0, ..VolumePolicy::default() },
            VolumePolicy { chunk_bytes: 100_000, ..VolumePolicy::default() },
            VolumePolicy { chunk_bytes: CHUNK_BYTES_MIN / 2, ..VolumePolicy::default() },
        ] {
            assert!(new(bad.clone()).check().is_err(), "{bad:?}");
        }
        assert!(NewVolume { mode: 0o10_000, ..NewVolume::named("www") }.check().is_err());
    }

    #[test]
    fn labels_are_checked() {
        let mut labelled = NewVolume::named("www");
        labelled.labels = Labels::from([("csi.storage.k8s.io/pvc/name".into(), "a claim, and more".into())]);
        assert_eq!(labelled.check(), Ok(()));
        for (key, value) in [("", "x"), ("a b", "x"), ("a", "line\nbreak"), ("a", "x".repeat(254).as_str())] {
            labelled.labels = Labels::from([(key.into(), value.into())]);
            assert!(labelled.check().is_err(), "{key:?}={value:?}");
        }
        labelled.labels = (0..=LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
        assert!(labelled.check().is_err());
    }

    #[test]
    fn what_is_not_named_stays() {
        let mut changed = volume();
        let labels = BTreeMap::from([("tier".into(), None), ("team".into(), Some("a".into()))]);
        changed.change(VolumeChange { quota_bytes: Some(7), labels, ..VolumeChange::default() }).unwrap();
        let policy = VolumePolicy { quota_bytes: 7, ..VolumePolicy::default() };
        assert_eq!(changed, Volume { policy, labels: Labels::from([("team".into(), "a".into())]), ..volume() });
        let bad = VolumeChange {
            quota_bytes: Some(9),
            labels: BTreeMap::from([(String::new(), Some(String::new()))]),
            ..VolumeChange::default()
        };
        let before = changed.clone();
        assert!(changed.change(bad).is_err());
        assert_eq!(changed, before);
    }
}
