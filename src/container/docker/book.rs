//! Who uses which volume on this host: a small file, replaced whole at each change, before anybody is told of it.
//!
//! Uses end with the boot that they began in: nothing is mounted after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::file::write_private;

const FILE: &str = "uses.json";
const VERSION: u32 = 1;
const BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The uses of volumes, by their names.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    page: Page,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u32,
    boot: String,
    volumes: BTreeMap<String, Uses>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uses {
    ids: BTreeSet<String>,
    /// The volume is for one container at a time.
    is_for_one: bool,
}

impl Book {
    /// The book of a directory, as it is to be read in this boot of the host.
    ///
    /// # Errors
    /// The file cannot be read, or is not a book.
    pub fn open(dir: &Path) -> io::Result<Book> {
        Book::open_in_boot(dir, fs::read_to_string(BOOT_FILE)?.trim())
    }

    fn open_in_boot(dir: &Path, boot: &str) -> io::Result<Book> {
        let path = dir.join(FILE);
        let new = Page { version: VERSION, boot: boot.to_string(), volumes: BTreeMap::new() };
        let page = match fs::read(&path) {
            Ok(bytes) => page_of(&bytes).map_err(|why| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be used: {why}", path.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => new.clone(),
            Err(error) => return Err(error),
        };
        let page = if page.boot == new.boot { page } else { new };
        Ok(Book { path, page })
    }

    pub fn is_used(&self, volume: &str) -> bool {
        self.page.volumes.contains_key(volume)
    }

    /// How many uses there are, if this is one of them.
    pub fn uses_with(&self, volume: &str, id: &str) -> Option<usize> {
        self.page.volumes.get(volume).filter(|uses| uses.ids.contains(id)).map(|uses| uses.ids.len())
    }

    pub fn used(&self) -> Vec<String> {
        self.page.volumes.keys().cloned().collect()
    }

    /// Ends all uses of a volume.
    ///
    /// # Errors
    /// It could not be written down; nothing has changed.
    pub fn forget(&mut self, volume: &str) -> io::Result<()> {
        let mut page = self.page.clone();
        page.volumes.remove(volume);
        self.turn(page)
    }

    /// Another use than this has the volume to itself.
    pub fn is_taken(&self, volume: &str, id: &str) -> bool {
        self.page.volumes.get(volume).is_some_and(|uses| uses.is_for_one && !uses.ids.contains(id))
    }

    /// # Errors
    /// It could not be written down; nothing has changed.
    pub fn add(&mut self, volume: &str, id: &str, is_for_one: bool) -> io::Result<()> {
        let mut page = self.page.clone();
        let uses = page.volumes.entry(volume.to_string()).or_default();
        uses.is_for_one |= is_for_one;
        uses.ids.insert(id.to_string());
        self.turn(page)
    }

    /// # Errors
    /// It could not be written down; nothing has changed.
    pub fn remove(&mut self, volume: &str, id: &str) -> io::Result<()> {
        let mut page = self.page.clone();
        if let Some(uses) = page.volumes.get_mut(volume) {
            uses.ids.remove(id);
            if uses.ids.is_empty() {
                page.volumes.remove(volume);
            }
        }
        self.turn(page)
    }

    fn turn(&mut self, page: Page) -> io::Result<()> {
        if page.volumes != self.page.volumes {
            write_private(&self.path, &serde_json::to_vec(&page)?)?;
        }
        self.page = page;
        Ok(())
    }
}

fn page_of(bytes: &[u8]) -> Result<Page, String> {
    let page: Page = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match page.version {
        VERSION => Ok(page),
        other => Err(format!("it is of version {other}, and this program writes {VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_a_set_and_live_on() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Book::open_in_boot(dir.path(), "boot-1").unwrap();
        let mut book = open();
        for id in ["a", "b", "b"] {
            book.add("www", id, false).unwrap();
        }
        let mut book = open();
        book.remove("www", "never seen").unwrap();
        book.remove("other", "a").unwrap();
        book.remove("www", "b").unwrap();
        assert!(book.is_used("www"), "a uses it");
        assert_eq!(open().used(), ["www"]);
        assert_eq!((book.uses_with("www", "a"), book.uses_with("www", "b")), (Some(1), None));
        book.remove("www", "a").unwrap();
        assert!(!book.is_used("www") && !open().is_used("www"));
        book.add("www", "a", false).unwrap();
        book.forget("www").unwrap();
        assert!(!open().is_used("www"));
    }

    #[test]
    fn a_volume_for_one_is_taken_by_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::open_in_boot(dir.path(), "x").unwrap();
        assert!(!book.is_taken("db", "a"));
        book.add("db", "a", true).unwrap();
        let mut book = Book::open_in_boot(dir.path(), "x").unwrap();
        assert!(book.is_taken("db", "b") && !book.is_taken("db", "a"), "the call may be made again");
        book.remove("db", "a").unwrap();
        assert!(!book.is_taken("db", "b"));
        book.add("www", "a", false).unwrap();
        assert!(!book.is_taken("www", "b"));
    }

    #[test]
    fn uses_end_with_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        Book::open_in_boot(dir.path(), "boot-1").unwrap().add("www", "a", false).unwrap();
        assert!(Book::open_in_boot(dir.path(), "boot-1").unwrap().is_used("www"));
        let mut book = Book::open_in_boot(dir.path(), "boot-2").unwrap();
        assert!(!book.is_used("www"));
        book.add("db", "b", false).unwrap();
        assert!(!Book::open_in_boot(dir.path(), "boot-2").unwrap().is_used("www"));
    }

    #[test]
    fn what_is_no_book_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"version": 2, "boot": "x", "volumes": {}}"#] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Book::open_in_boot(dir.path(), "x").unwrap_err().to_string().contains(FILE), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_written_down_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::open_in_boot(dir.path(), "x").unwrap();
        book.add("www", "a", false).unwrap();
        let gone = dir.path().join("gone");
        book.path = gone.join(FILE);
        assert!(book.add("www", "b", false).is_err() && book.remove("www", "a").is_err());
        assert!(book.is_used("www"));
    }
}
