//! Mount options, as `mount -o` and fstab give them.

/// Options that speak to `mount`, systemd and fstab, not to a filesystem. `x-…` and `X-…` are others.
/// And what changes nothing here: `lazytime` and the like are about what a local filesystem writes when.
const FOR_OTHERS: [&str; 21] = [
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "async",
    "default_permissions",
    "lazytime",
    "nolazytime",
    "diratime",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "nostrictatime",
    "rbind",
];

/// When reading updates a file's access time. The kernel leaves it to whoever keeps the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessTimes {
    /// When it is older than the last change, or a day old.
    #[default]
    Relative,
    Never,
    Always,
}

/// Whether the kernel passes `sync(2)` and `syncfs(2)` on to the mount, which needs a loop device and root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncCalls {
    #[default]
    HeardIfPossible,
    /// There is no mount without.
    Heard,
    /// No loop device is wanted.
    Unheard,
}

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Shown as the source of the mount, by `df` and `mount`: `holdfast:VOLUME` unless told otherwise.
    pub fsname: String,
    pub read_only: bool,
    /// Honour set-id bits. Off unless asked for, as for every FUSE mount.
    pub suid: bool,
    /// Honour device nodes. Off unless asked for.
    pub dev: bool,
    pub exec: bool,
    pub access_times: AccessTimes,
    /// Every write is durable before it returns.
    pub sync: bool,
    /// Every change of names is durable before it returns.
    pub dirsync: bool,
    pub sync_calls: SyncCalls,
    /// Other users than the one who mounts may use it. On for root.
    pub allow_other: bool,
    /// Threads that take requests from the kernel; 0 is one per core, within bounds. Not a word of `mount -o`.
    pub threads: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("unknown mount option `{0}`")]
    Unknown(String),
    #[error("mount option `{0}` needs a value")]
    NoValue(&'static str),
    #[error("a line break cannot stand in the mount option `{0}`")]
    BadValue(&'static str),
}

impl MountOptions {
    /// Read-write, nothing special, for everyone if root mounts.
    pub fn new(volume: &str) -> MountOptions {
        MountOptions {
            fsname: format!("holdfast:{volume}"),
            read_only: false,
            suid: false,
            dev: false,
            exec: true,
            access_times: AccessTimes::Relative,
            sync: false,
            dirsync: false,
            sync_calls: SyncCalls::HeardIfPossible,
            allow_other: super::mount::is_root(),
            threads: 0,
        }
    }

    /// Reads a comma-separated list; of options that contradict each other the last one holds.
    ///
    /// # Errors
    /// An option that is not known, or one without its value.
    pub fn parse(volume: &str, list: &str) -> Result<MountOptions, OptionError> {
        let mut options = MountOptions::new(volume);
        for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            options.apply(option)?;
        }
        Ok(options)
    }

    fn apply(&mut self, option: &str) -> Result<(), OptionError> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            "noatime" => self.access_times = AccessTimes::Never,
            // With access times as rare as `relatime` makes them, those of directories are not worth an option.
            "nodiratime" => {}
            "relatime" | "norelatime" | "atime" => self.access_times = AccessTimes::Relative,
            "strictatime" => self.access_times = AccessTimes::Always,
            "sync" => self.sync = true,
            "dirsync" => self.dirsync = true,
            "syncfs" => self.sync_calls = SyncCalls::Heard,
            "nosyncfs" => self.sync_calls = SyncCalls::Unheard,
            "allow_other" => self.allow_other = true,
            "subtype=holdfast" => {}
            "fsname" => return Err(OptionError::NoValue("fsname")),
            _ => return self.apply_other(option),
        }
        Ok(())
    }

    fn apply_other(&mut self, option: &str) -> Result<(), OptionError> {
        if let Some(name) = option.strip_prefix("fsname=") {
            if name.is_empty() {
                return Err(OptionError::NoValue("fsname"));
            }
            self.fsname = name.to_owned();
            return Ok(());
        }
        let for_others = FOR_OTHERS.contains(&option) || option.starts_with("x-") || option.starts_with("X-");
        if for_others { Ok(()) } else { Err(OptionError::Unknown(option.to_owned())) }
    }

    /// # Errors
    /// A source name that would fall apart in `/proc/mounts`.
    pub(super) fn check(&self) -> Result<(), OptionError> {
        let breaks = self.fsname.contains(['\n', '\0']);
        if breaks { Err(OptionError::BadValue("fsname")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_holds() {
        let options =
            MountOptions::parse("v", "rw,_netdev,nofail,noatime,x-systemd.automount,suid,ro,nosuid,user").unwrap();
        assert!(options.read_only && !options.suid && options.exec);
        assert_eq!(options.access_times, AccessTimes::Never);
        assert_eq!(options.fsname, "holdfast:v");
        assert_eq!(MountOptions::parse("v", "").unwrap(), MountOptions::new("v"));
    }

    #[test]
    fn unknown_options_are_named() {
        assert_eq!(MountOptions::parse("v", "ro,frobnicate=2"), Err(OptionError::Unknown("frobnicate=2".into())));
        assert_eq!(MountOptions::parse("v", "fsname="), Err(OptionError::NoValue("fsname")));
        assert_eq!(MountOptions::parse("v", "subtype=other"), Err(OptionError::Unknown("subtype=other".into())));
    }

    #[test]
    fn names_that_would_break_a_line_are_refused() {
        let options = MountOptions { fsname: "a\nb".into(), ..MountOptions::new("v") };
        assert_eq!(options.check(), Err(OptionError::BadValue("fsname")));
    }
}
