//! What Docker says and is told, as JSON. Names as its engine writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of every call; what a call does not say is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Request {
    pub name: String,
    /// Names one use of the volume.
    #[serde(rename = "ID")]
    pub id: String,
    pub opts: Option<BTreeMap<String, String>>,
}

/// Of every call; what does not belong to it is left out.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<VolumeAnswer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub implements: Option<[&'static str; 1]>,
    /// One sentence, empty when all is well.
    pub err: String,
}

#[derive(Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumeAnswer {
    pub name: String,
    /// Empty where it is not mounted on this host.
    pub mountpoint: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Capabilities {
    /// `global`: a volume is the same on every host.
    pub scope: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_whatever_they_leave_out() {
        let request: Request = serde_json::from_str(r#"{"Name": "www", "Opts": {"size": "1G"}}"#).unwrap();
        assert_eq!((request.name.as_str(), request.opts.unwrap()["size"].as_str()), ("www", "1G"));
        let request: Request = serde_json::from_str(r#"{"Name": "www", "ID": "a1", "Opts": null, "New": 1}"#).unwrap();
        assert_eq!((request.id.as_str(), request.opts), ("a1", None));
        assert!(serde_json::from_str::<Request>("{}").unwrap().name.is_empty());
    }

    #[test]
    fn answers_say_what_they_are_asked_for() {
        assert_eq!(serde_json::to_string(&Answer::default()).unwrap(), r#"{"Err":""}"#);
        let volume = VolumeAnswer { name: "www".into(), ..VolumeAnswer::default() };
        let answer = Answer { volume: Some(volume), ..Answer::default() };
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"Volume":{"Name":"www","Mountpoint":""},"Err":""}"#);
        let answer = Answer { capabilities: Some(Capabilities { scope: "global" }), ..Answer::default() };
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"Capabilities":{"Scope":"global"},"Err":""}"#);
        let answer = Answer { implements: Some(["VolumeDriver"]), ..Answer::default() };
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"Implements":["VolumeDriver"],"Err":""}"#);
    }
}
