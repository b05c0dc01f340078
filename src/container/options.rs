//! What a volume is to be like, by words and their values: options of `docker volume create`, parameters of a StorageClass.

use std::collections::BTreeMap;

use crate::config::value::{ByteSize, Label, Mode, Span, ValueError};
use crate::types::attr::Owner;
use crate::types::volume::{Access, Labels, NewVolume, Volume};

/// As written for people; `-`, `_` and capitals make no difference.
const KEYS: &str = "size, inodes, replicas, chunk-size, access, patience, uid, gid, mode, labels";
/// As Kubernetes writes them, and as the command line does.
const ACCESSES: [Access; 5] = [Access::Many, Access::One, Access::Readers, Access::Fenced, Access::Container];

/// What was asked for; of the rest anything will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub quota_bytes: Option<u64>,
    pub quota_inodes: Option<u64>,
    pub replicas: Option<u8>,
    pub chunk_bytes: Option<u32>,
    pub patience_ms: Option<u64>,
    pub access: Option<Access>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
    pub labels: Labels,
}

/// What was not understood, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("there is no option {0}; there are: {KEYS}")]
    Unknown(String),
    #[error("the option {key}: {why}")]
    Value { key: String, why: String },
}

impl Wanted {
    /// # Errors
    /// A word is not known, or its value is not understood.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Wanted, OptionError> {
        let mut wanted = Wanted::default();
        for (key, value) in options {
            wanted.set(key, value.trim())?;
        }
        Ok(wanted)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let fault = |why: String| OptionError::Value { key: key.to_string(), why };
        let said = |error: ValueError| fault(error.to_string());
        let number = |max: u64| {
            let number = value.parse().ok().filter(|number| *number <= max);
            number.ok_or_else(|| fault(format!("`{value}` is not a number up to {max}")))
        };
        match key.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "size" => self.quota_bytes = Some(value.parse::<ByteSize>().map_err(said)?.0),
            "inodes" => self.quota_inodes = Some(number(u64::MAX)?),
            "replicas" => self.replicas = u8::try_from(number(u8::MAX.into())?).ok(),
            "chunksize" => {
                let bytes = value.parse::<ByteSize>().map_err(said)?.0;
                let bytes = u32::try_from(bytes).map_err(|_| fault(format!("a chunk of {value} is too large")))?;
                self.chunk_bytes = Some(bytes);
            }
            "access" => {
                let access = ACCESSES.into_iter().find(|access| access.name() == value);
                let known = ACCESSES.map(Access::name).join(", ");
                self.access = Some(access.ok_or_else(|| fault(format!("`{value}` is none of {known}")))?);
            }
            "patience" => self.patience_ms = Some(value.parse::<Span>().map_err(said)?.millis()),
            "uid" => self.uid = u32::try_from(number(u64::from(u32::MAX) - 1)?).ok(),
            "gid" => self.gid = u32::try_from(number(u64::from(u32::MAX) - 1)?).ok(),
            "mode" => self.mode = Some(value.parse::<Mode>().map_err(said)?.0),
            "labels" => {
                for label in value.split(',').filter(|label| !label.is_empty()) {
                    let Label { key, value } = label.parse().map_err(said)?;
                    self.labels.insert(key, value);
                }
            }
            _ => return Err(OptionError::Unknown(key.to_string())),
        }
        Ok(())
    }

    /// The volume to make; its root belongs to root where nobody else is named.
    pub fn volume(&self, name: &str) -> NewVolume {
        let mut volume = NewVolume::named(name);
        let policy = &mut volume.policy;
        policy.quota_bytes = self.quota_bytes.unwrap_or(policy.quota_bytes);
        policy.quota_inodes = self.quota_inodes.unwrap_or(policy.quota_inodes);
        policy.replicas = self.replicas.unwrap_or(policy.replicas);
        policy.chunk_bytes = self.chunk_bytes.unwrap_or(policy.chunk_bytes);
        policy.patience_ms = self.patience_ms.unwrap_or(policy.patience_ms);
        policy.access = self.access.unwrap_or(policy.access);
        volume.owner = Owner { uid: self.uid.unwrap_or(0), gid: self.gid.unwrap_or(0) };
        volume.mode = self.mode.unwrap_or(volume.mode);
        volume.labels = self.labels.clone();
        volume
    }

    /// What a volume that is there has otherwise than it was asked for, as words and what the volume has: nothing, and it is the answer.
    /// Its root is its users' to change.
    pub fn differences(&self, volume: &Volume) -> BTreeMap<&'static str, String> {
        let (policy, mut other) = (&volume.policy, BTreeMap::new());
        let mut compare = |key, wanted: Option<String>, has: String| {
            if wanted.is_some_and(|wanted| wanted != has) {
                other.insert(key, has);
            }
        };
        let size = |bytes: u64| ByteSize(bytes).to_string();
        compare("size", self.quota_bytes.map(size), size(policy.quota_bytes));
        compare("inodes", self.quota_inodes.map(|n| n.to_string()), policy.quota_inodes.to_string());
        compare("replicas", self.replicas.map(|n| n.to_string()), policy.replicas.to_string());
        compare("chunk-size", self.chunk_bytes.map(|n| size(n.into())), size(policy.chunk_bytes.into()));
        compare("patience", self.patience_ms.map(|ms| ms.to_string()), policy.patience_ms.to_string());
        compare("access", self.access.map(|access| access.name().into()), policy.access.name().into());
        for (key, value) in &self.labels {
            let has = volume.labels.get(key);
            compare("labels", Some(format!("{key}={value}")), has.map_or("none".into(), |has| format!("{key}={has}")));
        }
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::{TreeId, VolumeId};

    fn parse(options: &[(&str, &str)]) -> Result<Wanted, OptionError> {
        let options: BTreeMap<String, String> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Wanted::parse(&options)
    }

    fn made(wanted: &Wanted) -> Volume {
        let NewVolume { name, policy, labels, .. } = wanted.volume("www");
        Volume { id: VolumeId(1), name, tree: TreeId(1), policy, labels }
    }

    #[test]
    fn every_option_is_understood() {
        let wanted = parse(&[
            ("size", "10G"),
            ("inodes", "1000"),
            ("replicas", "2"),
            ("chunkSize", "256KiB"),
            ("access", "fenced"),
            ("patience", "30s"),
            ("uid", "33"),
            ("gid", "34"),
            ("mode", "2770"),
            ("labels", "team=web,tier=1"),
        ]);
        let volume = wanted.unwrap().volume("www");
        let policy = &volume.policy;
        assert_eq!((policy.quota_bytes, policy.quota_inodes), (10 << 30, 1000));
        assert_eq!((policy.replicas, policy.chunk_bytes, policy.patience_ms), (2, 256 << 10, 30_000));
        assert_eq!(policy.access, Access::Fenced);
        assert_eq!((volume.owner, volume.mode), (Owner { uid: 33, gid: 34 }, 0o2770));
        assert_eq!(volume.labels.len(), 2);
        assert_eq!(parse(&[("chunk-size", "1MiB"), ("Chunk_Size", "1MiB")]).unwrap().chunk_bytes, Some(1 << 20));
        assert_eq!(parse(&[]).unwrap().volume("www"), NewVolume { owner: Owner::default(), ..NewVolume::named("www") });
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(parse(&[("colour", "red")]).unwrap_err().to_string().contains("there are: size"));
        for (key, value) in [
            ("size", "ten"),
            ("replicas", "300"),
            ("access", "both"),
            ("uid", "4294967295"),
            ("mode", "999"),
            ("labels", "x"),
        ] {
            assert!(parse(&[(key, value)]).unwrap_err().to_string().contains(key), "{key}={value}");
        }
    }

    #[test]
    fn a_volume_that_is_there_answers_for_what_was_asked() {
        let wanted = parse(&[("size", "10G"), ("labels", "team=web")]).unwrap();
        let volume = made(&wanted);
        assert!(wanted.differences(&volume).is_empty());
        assert!(Wanted::default().differences(&volume).is_empty(), "nothing was said");
        assert!(parse(&[("mode", "700")]).unwrap().differences(&volume).is_empty());
        let other = parse(&[("size", "20G"), ("labels", "team=db"), ("replicas", "3")]).unwrap();
        let differences = other.differences(&volume);
        assert_eq!(differences["size"], "10GiB");
        assert_eq!(differences["labels"], "team=web");
        assert_eq!(differences.len(), 2);
    }
}
