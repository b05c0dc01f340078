//! POSIX ACLs in the kernel's xattr form, and how they and the mode bits follow each other.

use holdfast::types::error::FsError;

pub const ACCESS: &[u8] = b"system.posix_acl_access";
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone)]
pub struct Acl {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

impl Acl {
    pub fn decode(bytes: &[u8]) -> Result<Acl, FsError> {
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or(FsError::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(FsError::NotSupported);
        }
        let (chunks, tail) = rest.as_chunks::<8>();
        if !tail.is_empty() {
            return Err(FsError::Invalid);
        }
        let entries = chunks
            .iter()
            .map(|e| Entry {
                tag: u16::from_le_bytes([e[0], e[1]]),
                perm: u16::from_le_bytes([e[2], e[3]]),
                id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
            })
            .collect();
        let acl = Acl { entries };
        acl.check()?;
        Ok(acl)
    }

    /// One each of owner, group and other; a mask where names are; in the kernel's order.
    fn check(&self) -> Result<(), FsError> {
        let count = |tag| self.entries.iter().filter(|e| e.tag == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        let sorted = self.entries.is_sorted_by_key(|e| e.tag);
        let known = self.entries.iter().all(|e| e.perm <= 7 && [1, 2, 4, 8, 16, 32].contains(&e.tag));
        let singles = count(USER_OBJ) == 1 && count(GROUP_OBJ) == 1 && count(OTHER) == 1 && count(MASK) <= 1;
        if sorted && known && singles && (!named || count(MASK) == 1) { Ok(()) } else { Err(FsError::Invalid) }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            out.extend(entry.tag.to_le_bytes());
            out.extend(entry.perm.to_le_bytes());
            out.extend(entry.id.to_le_bytes());
        }
        out
    }

    /// Says no more than mode bits can.
    pub fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    fn perm(&self, tag: u16) -> Option<u32> {
        self.entries.iter().find(|e| e.tag == tag).map(|e| u32::from(e.perm))
    }

    fn set_perm(&mut self, tag: u16, perm: u32) {
        for entry in self.entries.iter_mut().filter(|e| e.tag == tag) {
            entry.perm = (perm & 7) as u16;
        }
    }

    fn group_class(&self) -> u16 {
        if self.perm(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    /// The nine permission bits this ACL stands for.
    pub fn mode(&self) -> u32 {
        let of = |tag| self.perm(tag).unwrap_or(0);
        of(USER_OBJ) << 6 | of(self.group_class()) << 3 | of(OTHER)
    }

    /// `chmod`: owner, group class and other follow the mode.
    pub fn follow_mode(&mut self, mode: u32) {
        let group_class = self.group_class();
        self.set_perm(USER_OBJ, mode >> 6);
        self.set_perm(group_class, mode >> 3);
        self.set_perm(OTHER, mode);
    }

    /// A new file under a default ACL: the bits both allow, here and in the mode returned.
    pub fn limit_to_mode(&mut self, mode: u32) -> u32 {
        let allowed = self.mode() & mode;
        self.follow_mode(allowed);
        mode & !0o777 | allowed
    }
}
