//! What the driver keeps of each mount that it has made: how it was asked for, and the credential that came with that call.
//!
//! A note tells a call that comes again from one that asks for something else, and how a mount that has ended, or was given up by its
//! process, is to be made again. That something is mounted only the kernel's table says. A note that is missing, or cannot be read, is as
//! none: a driver of before has left none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::host::file::write_private;
use crate::types::digest::fingerprint;

const CREDENTIALS: &str = "credentials";
const NOTES: &str = "mounts";

/// How a volume was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub volume: String,
    /// Options of the mount.
    pub flags: Vec<String>,
    pub read_only: bool,
    pub is_block: bool,
}

impl Note {
    /// Who has asked for one has what the other asks for: in whichever order, and however often, an option is named.
    pub fn is_like(&self, other: &Note) -> bool {
        let flags = |note: &Note| note.flags.iter().cloned().collect::<BTreeSet<_>>();
        let rest = |note: &Note| (note.volume.clone(), note.read_only, note.is_block);
        flags(self) == flags(other) && rest(self) == rest(other)
    }
}

/// A directory of this driver alone.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    dir: PathBuf,
}

impl Staged {
    pub fn new(dir: &Path) -> Staged {
        Staged { dir: dir.to_path_buf() }
    }

    pub fn note(&self, place: &Path) -> Option<Note> {
        serde_json::from_slice(&fs::read(self.file(NOTES, place)).ok()?).ok()
    }

    /// # Errors
    /// It cannot be kept.
    pub fn keep_note(&self, place: &Path, note: &Note) -> io::Result<()> {
        self.write(NOTES, place, &serde_json::to_vec(note).map_err(io::Error::other)?).map(drop)
    }

    /// Of one mount: another of the same volume may have come with another, and lives on by it.
    pub fn credential(&self, place: &Path) -> Option<PathBuf> {
        Some(self.file(CREDENTIALS, place)).filter(|file| file.exists())
    }

    /// The file that it is kept in.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn keep_credential(&self, place: &Path, credential: &str) -> io::Result<PathBuf> {
        self.write(CREDENTIALS, place, credential.as_bytes())
    }

    /// The mount is no more, and is to be no more; or never was.
    pub fn forget(&self, place: &Path) {
        // Most have no credential.
        for kind in [CREDENTIALS, NOTES] {
            let _ = fs::remove_file(self.file(kind, place));
        }
    }

    fn write(&self, kind: &str, place: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
        fs::create_dir_all(self.dir.join(kind))?;
        let file = self.file(kind, place);
        write_private(&file, bytes).map(|()| file)
    }

    fn file(&self, kind: &str, place: &Path) -> PathBuf {
        self.dir.join(kind).join(HEXLOWER.encode(&fingerprint(place.as_os_str().as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(flags: &[&str]) -> Note {
        let flags = flags.iter().map(ToString::to_string).collect();
        Note { volume: "a".into(), flags, read_only: false, is_block: false }
    }

    #[test]
    fn a_note_is_there_until_its_mount_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (staged, place) = (Staged::new(dir.path()), Path::new("/staging/a"));
        assert_eq!((staged.note(place), staged.credential(place)), (None, None));
        staged.keep_note(place, &note(&["noatime"])).unwrap();
        let file = staged.keep_credential(place, "secret").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
        assert_eq!(staged.note(place), Some(note(&["noatime"])));
        assert_eq!((staged.note(Path::new("/staging/b")), staged.credential(place)), (None, Some(file)));
        fs::write(staged.file(NOTES, place), "{").unwrap();
        assert_eq!(staged.note(place), None, "what cannot be read says nothing");
        staged.forget(place);
        assert_eq!((staged.note(place), staged.credential(place)), (None, None));
    }

    #[test]
    fn what_is_asked_for_is_the_same_in_any_order() {
        assert!(note(&["noatime", "nosuid"]).is_like(&note(&["nosuid", "noatime", "nosuid"])));
        assert!(!note(&["noatime"]).is_like(&note(&[])));
        assert!(!note(&[]).is_like(&Note { is_block: true, ..note(&[]) }));
        assert!(!note(&[]).is_like(&Note { read_only: true, ..note(&[]) }));
    }
}
