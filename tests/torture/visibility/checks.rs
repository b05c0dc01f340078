//! The table of checks. `f` is a file of "hello", `d` a directory, made through mount A.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Scene, Visible};
use crate::fault::{Check, Fault, ensure};
use crate::procs;
use crate::sys::{self, Errno, Mapping, Sys};

pub fn all() -> Vec<Visible> {
    let mut all = data();
    all.extend(sizes());
    all.extend(attributes());
    all.extend(names());
    all.extend(xattrs());
    all.extend(locks());
    all.extend(unlinked());
    all
}

fn check(
    name: &'static str,
    prepare: fn(&Scene) -> Check,
    act: fn(&Scene) -> Check,
    seen: fn(&Scene) -> Check<bool>,
) -> Visible {
    Visible { name, prepare, act, seen, within: Duration::ZERO }
}

fn file(s: &Scene) -> Check {
    Ok(sys::write_file(s.a("f"), b"hello")?)
}

fn directory(s: &Scene) -> Check {
    Ok(sys::mkdir(s.a("d"), 0o755)?)
}

fn nothing(_: &Scene) -> Check {
    Ok(())
}

/// `f`, held open for reading through B.
fn file_read_at_b(s: &Scene) -> Check {
    file(s)?;
    s.hold_b(sys::open(s.b("f"), libc::O_RDONLY, 0)?);
    Ok(())
}

/// `f`, held open for reading and writing through B.
fn file_written_at_b(s: &Scene) -> Check {
    file(s)?;
    s.hold_b(sys::open(s.b("f"), libc::O_RDWR, 0)?);
    Ok(())
}

/// `f`, held open for reading and writing through both.
fn file_open_at_both(s: &Scene) -> Check {
    file_written_at_b(s)?;
    s.hold_a(sys::open(s.a("f"), libc::O_RDWR, 0)?);
    Ok(())
}

fn file_held_at_a(s: &Scene) -> Check {
    s.hold_a(sys::open(s.a("f"), libc::O_RDWR, 0)?);
    Ok(())
}

fn held<T>(slot: &std::cell::RefCell<Option<OwnedFd>>, f: impl FnOnce(&OwnedFd) -> Sys<T>) -> Check<T> {
    let slot = slot.borrow();
    let Some(fd) = slot.as_ref() else { return crate::fault::fault("nothing is held".to_string()) };
    Ok(f(fd)?)
}

fn overwrite(s: &Scene) -> Check {
    let fd = sys::open(s.a("f"), libc::O_WRONLY, 0)?;
    Ok(sys::write_all(&fd, b"HELLO", 0)?)
}

fn overwrite_held(s: &Scene) -> Check {
    held(&s.at_a, |fd| sys::write_all(fd, b"HELLO", 0))
}

fn reads_new_by_path(s: &Scene) -> Check<bool> {
    Ok(sys::read_file(s.b("f"))? == b"HELLO")
}

fn reads_new_by_handle(s: &Scene) -> Check<bool> {
    held(&s.at_b, |fd| sys::read_to_end(fd, 0)).map(|content| content == b"HELLO")
}

fn maps_new(s: &Scene) -> Check<bool> {
    held(&s.at_b, |fd| Ok(Mapping::new(fd, libc::PROT_READ, 5)?.bytes() == b"HELLO"))
}

/// Nothing there yet is "not seen"; any other failure is a fault.
fn unless_missing<T>(outcome: Sys<T>, seen: impl FnOnce(T) -> bool) -> Check<bool> {
    match outcome {
        Ok(value) => Ok(seen(value)),
        Err(Errno { code: libc::ENOENT | libc::ENODATA, .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn is_missing(path: PathBuf) -> Check<bool> {
    match sys::lstat(path) {
        Ok(_) => Ok(false),
        Err(Errno { code: libc::ENOENT, .. }) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

fn data() -> Vec<Visible> {
    vec![
        check("overwrite, read by path", file, overwrite, reads_new_by_path),
        check("overwrite, read by a reading handle", file_read_at_b, overwrite, reads_new_by_handle),
        check("overwrite, read by a writing handle", file_written_at_b, overwrite, reads_new_by_handle),
        check("overwrite by handle, read by path", file_open_at_both, overwrite_held, reads_new_by_path),
        check("overwrite by handle, read by handle", file_open_at_both, overwrite_held, reads_new_by_handle),
        check("overwrite, mapped afresh", file_read_at_b, overwrite, maps_new),
        check("mapped write and msync, read by handle", file_open_at_both, map_write, reads_new_by_handle),
        check("mapped write and msync, read by path", file_open_at_both, map_write, reads_new_by_path),
        check("direct write, read by path", big_file, direct_write, |s| Ok(sys::read_file(s.b("f"))?[0] == b'D')),
        check("copy_file_range, read by handle", file_open_at_both, copy_in, reads_new_by_handle),
        check("hole punched, read by handle", file_open_at_both, punch, |s| {
            held(&s.at_b, |fd| sys::read_to_end(fd, 0)).map(|c| c == b"h\0\0lo")
        }),
        check("hole punched, found by SEEK_HOLE", sized_file, punch_block, |s| {
            held(&s.at_b, |fd| sys::lseek(fd, 0, libc::SEEK_HOLE)).map(|at| at < 3 << 20)
        }),
        check(
            "mebibytes overwritten, read by handle",
            sized_file,
            |s| {
                let fd = sys::open(s.a("f"), libc::O_WRONLY, 0)?;
                Ok(sys::write_all(&fd, &vec![9; 3 << 20], 0)?)
            },
            |s| held(&s.at_b, |fd| sys::read_to_end(fd, 0)).map(|c| c.iter().all(|b| *b == 9)),
        ),
    ]
}

fn map_write(s: &Scene) -> Check {
    held(&s.at_a, |fd| {
        let mut mapping = Mapping::new(fd, libc::PROT_READ | libc::PROT_WRITE, 5)?;
        mapping.bytes_mut().copy_from_slice(b"HELLO");
        mapping.sync()
    })
}

fn big_file(s: &Scene) -> Check {
    Ok(sys::write_file(s.a("f"), &[b'h'; 8192])?)
}

fn direct_write(s: &Scene) -> Check {
    #[repr(align(4096))]
    struct Aligned([u8; 4096]);
    let fd = sys::open(s.a("f"), libc::O_WRONLY | libc::O_DIRECT, 0)?;
    ensure!(sys::pwrite(&fd, &Box::new(Aligned([b'D'; 4096])).0, 0)? == 4096, "short direct write");
    Ok(())
}

fn copy_in(s: &Scene) -> Check {
    sys::write_file(s.a("source"), b"HELLO")?;
    let source = sys::open(s.a("source"), libc::O_RDONLY, 0)?;
    let copied = held(&s.at_a, |fd| sys::copy_file_range(&source, 0, fd, 0, 5))?;
    ensure!(copied == 5, "copied {copied} of 5");
    Ok(())
}

fn punch(s: &Scene) -> Check {
    held(&s.at_a, |fd| sys::fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 1, 2))
}

/// 3 MiB of data in `f`, open for reading through B.
fn sized_file(s: &Scene) -> Check {
    sys::write_file(s.a("f"), &vec![7; 3 << 20])?;
    s.hold_b(sys::open(s.b("f"), libc::O_RDONLY, 0)?);
    Ok(())
}

fn punch_block(s: &Scene) -> Check {
    let fd = sys::open(s.a("f"), libc::O_RDWR, 0)?;
    Ok(sys::fallocate(&fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20)?)
}

fn append(s: &Scene) -> Check {
    let fd = sys::open(s.a("f"), libc::O_WRONLY | libc::O_APPEND, 0)?;
    ensure!(sys::write(&fd, b", world")? == 7, "short append");
    Ok(())
}

fn sizes() -> Vec<Visible> {
    vec![
        check("append, stat", file, append, |s| Ok(sys::size(s.b("f"))? == 12)),
        check("append, fstat", file_read_at_b, append, |s| held(&s.at_b, sys::fstat).map(|st| st.st_size == 12)),
        check("append, lseek to the end", file_read_at_b, append, |s| {
            held(&s.at_b, |fd| sys::lseek(fd, 0, libc::SEEK_END)).map(|end| end == 12)
        }),
        check("append, read past the old end", file_read_at_b, append, |s| {
            held(&s.at_b, |fd| sys::pread(fd, &mut [0; 7], 5)).map(|n| n == 7)
        }),
        check("append, appended again behind it", file_written_at_b, append, |s| {
            let size = sys::size(s.b("f"))?;
            let fd = sys::open(s.b("f"), libc::O_RDWR | libc::O_APPEND, 0)?;
            sys::write(&fd, b"!")?;
            let content = sys::read_to_end(&fd, 0)?;
            sys::ftruncate(&fd, size)?;
            Ok(content == b"hello, world!")
        }),
        check("truncate, stat", file, |s| Ok(sys::truncate(s.a("f"), 2)?), |s| Ok(sys::size(s.b("f"))? == 2)),
        check(
            "truncate, read by handle",
            file_read_at_b,
            |s| Ok(sys::truncate(s.a("f"), 2)?),
            |s| held(&s.at_b, |fd| sys::read_to_end(fd, 0)).map(|c| c == b"he"),
        ),
        check(
            "ftruncate up, read as zeros",
            file_open_at_both,
            |s| held(&s.at_a, |fd| sys::ftruncate(fd, 7)),
            |s| held(&s.at_b, |fd| sys::read_to_end(fd, 0)).map(|c| c == b"hello\0\0"),
        ),
        check(
            "opened with O_TRUNC",
            file_read_at_b,
            |s| {
                sys::open(s.a("f"), libc::O_WRONLY | libc::O_TRUNC, 0)?;
                Ok(())
            },
            |s| held(&s.at_b, |fd| sys::read_to_end(fd, 0)).map(|c| c.is_empty()),
        ),
        check(
            "fallocate, stat",
            file_open_at_both,
            |s| held(&s.at_a, |fd| sys::fallocate(fd, 0, 0, 9000)),
            |s| Ok(sys::size(s.b("f"))? == 9000),
        ),
    ]
}

fn attributes() -> Vec<Visible> {
    vec![
        check(
            "chmod, stat",
            file,
            |s| Ok(sys::chmod(s.a("f"), 0o640)?),
            |s| Ok(sys::stat(s.b("f"))?.st_mode & 0o7777 == 0o640),
        ),
        check(
            "fchmod, fstat",
            file_open_at_both,
            |s| held(&s.at_a, |fd| sys::fchmod(fd, 0o604)),
            |s| held(&s.at_b, sys::fstat).map(|st| st.st_mode & 0o7777 == 0o604),
        ),
        check(
            "chmod takes another user's access away",
            file,
            |s| Ok(sys::chmod(s.a("f"), 0o600)?),
            |s| {
                as_another_user(s, |b| {
                    Ok(sys::open(b.join("f"), libc::O_RDONLY, 0).is_err_and(|e| e.code == libc::EACCES))
                })
            },
        ),
        check(
            "chmod of the directory takes it away",
            file,
            |s| Ok(sys::chmod(&s.a, 0o700)?),
            |s| as_another_user(s, |b| Ok(sys::stat(b.join("f")).is_err_and(|e| e.code == libc::EACCES))),
        ),
        check(
            "chown, stat",
            file,
            |s| Ok(sys::chown(s.a("f"), 12, 34)?),
            |s| sys::stat(s.b("f")).map(|st| (st.st_uid, st.st_gid) == (12, 34)).map_err(Into::into),
        ),
        check(
            "utimens, stat",
            file,
            |s| Ok(sys::utimens(s.a("f"), [(-5, 1), (7_000_000_000, 999_999_999)], 0)?),
            |s| {
                let st = sys::stat(s.b("f"))?;
                Ok((st.st_atime, st.st_mtime, st.st_mtime_nsec) == (-5, 7_000_000_000, 999_999_999))
            },
        ),
        check("write moves mtime", old_file, overwrite, |s| Ok(sys::stat(s.b("f"))?.st_mtime != 1)),
        check(
            "create moves the directory's mtime",
            old_directory,
            |s| Ok(sys::write_file(s.a("d/x"), b"")?),
            |s| Ok(sys::stat(s.b("d"))?.st_mtime != 1),
        ),
        check(
            "link, nlink",
            file_read_at_b,
            |s| Ok(sys::link(s.a("f"), s.a("g"))?),
            |s| held(&s.at_b, sys::fstat).map(|st| st.st_nlink == 2),
        ),
        check(
            "mkdir, the parent's nlink",
            directory,
            |s| Ok(sys::mkdir(s.a("d/e"), 0o755)?),
            |s| Ok(sys::stat(s.b("d"))?.st_nlink == 3),
        ),
    ]
}

fn old_file(s: &Scene) -> Check {
    file(s)?;
    Ok(sys::utimens(s.a("f"), [(1, 0), (1, 0)], 0)?)
}

fn old_directory(s: &Scene) -> Check {
    directory(s)?;
    Ok(sys::utimens(s.a("d"), [(1, 0), (1, 0)], 0)?)
}

/// Looks with another user's rights, in a process of its own that stands above the scene at B, so that only the scene's
/// own permissions count.
fn as_another_user(s: &Scene, look: impl Fn(&Path) -> Check<bool>) -> Check<bool> {
    const NOBODY: u32 = 65534;
    let answer = procs::ask_child(|| {
        let (Some(above), Some(name)) = (s.b.parent(), s.b.file_name()) else { return Ok(0) };
        std::env::set_current_dir(above).map_err(|e| Fault(format!("{}: {e}", above.display())))?;
        // SAFETY: plain calls; the process ends after this.
        unsafe {
            ensure!(libc::setgroups(0, std::ptr::null()) == 0, "setgroups: needs root");
            ensure!(libc::setresgid(NOBODY, NOBODY, NOBODY) == 0, "setresgid: needs root");
            ensure!(libc::setresuid(NOBODY, NOBODY, NOBODY) == 0, "setresuid: needs root");
        }
        look(Path::new(name)).map(u64::from)
    })?;
    Ok(answer == 1)
}

fn names() -> Vec<Visible> {
    let mut checks = vec![
        check("create, open", nothing, file, |s| unless_missing(sys::open(s.b("f"), libc::O_RDONLY, 0), |_| true)),
        check("create, stat", nothing, file, |s| unless_missing(sys::stat(s.b("f")), |st| st.st_size == 5)),
        check("create, listed", nothing, file, |s| Ok(lists(s, ".")? == ["f"])),
        check("create, O_EXCL refused", nothing, file, |s| {
            match sys::open(s.b("f"), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644) {
                Err(Errno { code: libc::EEXIST, .. }) => Ok(true),
                Err(e) => Err(e.into()),
                Ok(_) => Ok(sys::unlink(s.b("f")).map(|()| false)?),
            }
        }),
        check("mkdir", nothing, directory, |s| unless_missing(sys::list(s.b("d")), |_| true)),
        check(
            "symlink",
            nothing,
            |s| Ok(sys::symlink("target", s.a("l"))?),
            |s| unless_missing(sys::readlink(s.b("l")), |t| t == b"target"),
        ),
        check(
            "symlink replaced",
            |s| Ok(sys::symlink("old", s.a("l"))?),
            |s| {
                sys::symlink("new", s.a("m"))?;
                Ok(sys::rename(s.a("m"), s.a("l"))?)
            },
            |s| Ok(sys::readlink(s.b("l"))? == b"new"),
        ),
        check(
            "fifo",
            nothing,
            |s| Ok(sys::mknod(s.a("p"), libc::S_IFIFO | 0o644, 0)?),
            |s| unless_missing(sys::lstat(s.b("p")), |st| st.st_mode & libc::S_IFMT == libc::S_IFIFO),
        ),
        check(
            "device",
            nothing,
            |s| Ok(sys::mknod(s.a("c"), libc::S_IFCHR | 0o600, libc::makedev(1, 3))?),
            |s| unless_missing(sys::lstat(s.b("c")), |st| st.st_rdev == libc::makedev(1, 3)),
        ),
        check(
            "link",
            file,
            |s| Ok(sys::link(s.a("f"), s.a("g"))?),
            |s| unless_missing(sys::read_file(s.b("g")), |content| content == b"hello"),
        ),
        check("unlink, stat", file, |s| Ok(sys::unlink(s.a("f"))?), |s| is_missing(s.b("f"))),
        check("unlink, listed no more", file, |s| Ok(sys::unlink(s.a("f"))?), |s| Ok(lists(s, ".")?.is_empty())),
        check("rmdir", directory, |s| Ok(sys::rmdir(s.a("d"))?), |s| is_missing(s.b("d"))),
        check(
            "unlink, created again",
            file,
            |s| {
                sys::unlink(s.a("f"))?;
                Ok(sys::write_file(s.a("f"), b"again")?)
            },
            |s| Ok(sys::read_file(s.b("f"))? == b"again"),
        ),
        check(
            "directory replaced by a file",
            directory,
            |s| {
                sys::rmdir(s.a("d"))?;
                Ok(sys::write_file(s.a("d"), b"")?)
            },
            |s| Ok(sys::lstat(s.b("d"))?.st_mode & libc::S_IFMT == libc::S_IFREG),
        ),
    ];
    checks.extend(renames());
    checks
}

fn lists(s: &Scene, dir: &str) -> Check<Vec<String>> {
    Ok(sys::list(s.b(dir))?.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect())
}

fn renames() -> Vec<Visible> {
    vec![
        check("rename, the old name", file, |s| Ok(sys::rename(s.a("f"), s.a("g"))?), |s| is_missing(s.b("f"))),
        check(
            "rename, the new name",
            file,
            |s| Ok(sys::rename(s.a("f"), s.a("g"))?),
            |s| unless_missing(sys::read_file(s.b("g")), |content| content == b"hello"),
        ),
        check(
            "rename over",
            file,
            |s| {
                sys::write_file(s.a("g"), b"HELLO")?;
                Ok(sys::rename(s.a("g"), s.a("f"))?)
            },
            reads_new_by_path,
        ),
        check(
            "rename into another directory",
            |s| file(s).and_then(|()| directory(s)),
            |s| Ok(sys::rename(s.a("f"), s.a("d/f"))?),
            |s| Ok(lists(s, "d")? == ["f"] && is_missing(s.b("f"))?),
        ),
        check(
            "exchange",
            |s| {
                file(s)?;
                Ok(sys::write_file(s.a("g"), b"HELLO")?)
            },
            |s| Ok(sys::renameat2(s.a("f"), s.a("g"), libc::RENAME_EXCHANGE)?),
            |s| Ok(sys::read_file(s.b("f"))? == b"HELLO" && sys::read_file(s.b("g"))? == b"hello"),
        ),
        check(
            "rename of the directory above",
            |s| {
                directory(s)?;
                Ok(sys::write_file(s.a("d/f"), b"")?)
            },
            |s| Ok(sys::rename(s.a("d"), s.a("e"))?),
            |s| Ok(is_missing(s.b("d/f"))? && !is_missing(s.b("e/f"))?),
        ),
        check(
            "create in a directory held open",
            held_directory,
            |s| Ok(sys::write_file(s.a("d/f"), b"")?),
            |s| {
                let slot = s.at_b.borrow();
                let Some(dir) = slot.as_ref() else { return Ok(false) };
                unless_missing(sys::openat(dir, "f", libc::O_RDONLY, 0), |_| true)
            },
        ),
        check(
            "rmdir of a directory held open",
            held_directory,
            |s| Ok(sys::rmdir(s.a("d"))?),
            |s| {
                let slot = s.at_b.borrow();
                let Some(dir) = slot.as_ref() else { return Ok(false) };
                match sys::openat(dir, "f", libc::O_WRONLY | libc::O_CREAT, 0o644) {
                    Err(Errno { code: libc::ENOENT, .. }) => Ok(true),
                    Err(e) => Err(e.into()),
                    Ok(_) => Ok(sys::unlink(s.b("d/f")).map(|()| false)?),
                }
            },
        ),
    ]
}

fn held_directory(s: &Scene) -> Check {
    directory(s)?;
    s.hold_b(sys::open(s.b("d"), libc::O_RDONLY | libc::O_DIRECTORY, 0)?);
    Ok(())
}

fn xattrs() -> Vec<Visible> {
    vec![
        check(
            "setxattr",
            file,
            |s| Ok(sys::setxattr(s.a("f"), "user.x", b"1", 0)?),
            |s| unless_missing(sys::getxattr(s.b("f"), "user.x"), |v| v == b"1"),
        ),
        check(
            "setxattr, listed",
            file,
            |s| Ok(sys::setxattr(s.a("f"), "user.x", b"1", 0)?),
            |s| Ok(sys::listxattr(s.b("f"))?.iter().any(|n| n == "user.x")),
        ),
        check(
            "xattr replaced",
            xattr,
            |s| Ok(sys::setxattr(s.a("f"), "user.x", b"22", libc::XATTR_REPLACE)?),
            |s| Ok(sys::getxattr(s.b("f"), "user.x")? == b"22"),
        ),
        check(
            "xattr removed",
            xattr,
            |s| Ok(sys::removexattr(s.a("f"), "user.x")?),
            |s| Ok(sys::getxattr(s.b("f"), "user.x").is_err_and(|e| e.code == libc::ENODATA)),
        ),
        check(
            "ACL follows chmod",
            acl_file,
            |s| Ok(sys::chmod(s.a("f"), 0o600)?),
            |s| Ok(sys::getxattr(s.b("f"), ACCESS)? != acl_without_nobody()),
        ),
        check(
            "ACL follows fchmod",
            |s| acl_file(s).and_then(|()| file_held_at_a(s)),
            |s| held(&s.at_a, |fd| sys::fchmod(fd, 0o600)),
            |s| Ok(sys::getxattr(s.b("f"), ACCESS)? != acl_without_nobody()),
        ),
        check(
            "ACL removed",
            acl_file,
            |s| Ok(sys::removexattr(s.a("f"), ACCESS)?),
            |s| Ok(sys::getxattr(s.b("f"), ACCESS).is_err_and(|e| e.code == libc::ENODATA)),
        ),
        check(
            "ACL set, and enforced",
            file,
            |s| Ok(sys::setxattr(s.a("f"), "system.posix_acl_access", &acl_without_nobody(), 0)?),
            |s| {
                as_another_user(s, |b| {
                    Ok(sys::open(b.join("f"), libc::O_RDONLY, 0).is_err_and(|e| e.code == libc::EACCES))
                })
            },
        ),
    ]
}

const ACCESS: &str = "system.posix_acl_access";

/// `f` with an ACL.
fn acl_file(s: &Scene) -> Check {
    file(s)?;
    Ok(sys::setxattr(s.a("f"), ACCESS, &acl_without_nobody(), 0)?)
}

fn xattr(s: &Scene) -> Check {
    file(s)?;
    Ok(sys::setxattr(s.a("f"), "user.x", b"1", 0)?)
}

/// `u::rw-,u:nobody:---,g::r--,m::r--,o::r--`, as the kernel takes it.
fn acl_without_nobody() -> Vec<u8> {
    let undefined = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, undefined), (0x02, 0, 65534), (0x04, 4, undefined), (0x10, 4, undefined), (0x20, 4, undefined)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn refused(outcome: Sys<()>) -> Check<bool> {
    match outcome {
        Ok(()) => Ok(false),
        Err(Errno { code: libc::EAGAIN | libc::EACCES, .. }) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

fn flock_is_taken(s: &Scene) -> Check<bool> {
    held(&s.at_b, |fd| {
        let tried = sys::flock(fd, libc::LOCK_EX | libc::LOCK_NB);
        sys::flock(fd, libc::LOCK_UN)?;
        Ok(tried)
    })
    .and_then(refused)
}

fn ofd_is_taken(s: &Scene) -> Check<bool> {
    held(&s.at_b, |fd| sys::fcntl_lock(fd, libc::F_OFD_GETLK, libc::F_WRLCK, 10, 5))
        .map(|lock| i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Asked by another process: a process never conflicts with itself.
fn fcntl_is_taken(s: &Scene) -> Check<bool> {
    procs::ask_child(|| {
        let fd = sys::open(s.b("f"), libc::O_RDWR, 0)?;
        let lock = sys::fcntl_lock(&fd, libc::F_GETLK, libc::F_WRLCK, 10, 5)?;
        Ok(u64::from(i32::from(lock.l_type) != libc::F_UNLCK))
    })
    .map(|answer| answer == 1)
}

fn take_flock(s: &Scene) -> Check {
    held(&s.at_a, |fd| sys::flock(fd, libc::LOCK_EX | libc::LOCK_NB))
}

fn take_ofd(s: &Scene) -> Check {
    held(&s.at_a, |fd| sys::fcntl_lock(fd, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 12)).map(|_| ())
}

fn take_fcntl(s: &Scene) -> Check {
    held(&s.at_a, |fd| sys::fcntl_lock(fd, libc::F_SETLK, libc::F_WRLCK, 0, 12)).map(|_| ())
}

fn let_go(s: &Scene) -> Check {
    s.at_a.borrow_mut().take();
    Ok(())
}

/// After the last close of a file.
fn after_close(check: Visible) -> Visible {
    Visible { within: Duration::from_secs(1), ..check }
}

fn locks() -> Vec<Visible> {
    vec![
        check("flock taken", file_open_at_both, take_flock, flock_is_taken),
        check(
            "flock taken shared, exclusive refused",
            file_open_at_both,
            |s| held(&s.at_a, |fd| sys::flock(fd, libc::LOCK_SH)),
            flock_is_taken,
        ),
        check(
            "flock given back",
            |s| file_open_at_both(s).and_then(|()| take_flock(s)),
            |s| held(&s.at_a, |fd| sys::flock(fd, libc::LOCK_UN)),
            |s| flock_is_taken(s).map(|taken| !taken),
        ),
        after_close(check(
            "flock gone with its file",
            |s| file_open_at_both(s).and_then(|()| take_flock(s)),
            let_go,
            |s| flock_is_taken(s).map(|taken| !taken),
        )),
        check("OFD lock taken", file_open_at_both, take_ofd, ofd_is_taken),
        after_close(check(
            "OFD lock gone with its file",
            |s| file_open_at_both(s).and_then(|()| take_ofd(s)),
            let_go,
            |s| ofd_is_taken(s).map(|taken| !taken),
        )),
        check("fcntl lock taken", file_open_at_both, take_fcntl, fcntl_is_taken),
        check(
            "fcntl lock given back in part",
            |s| file_open_at_both(s).and_then(|()| take_fcntl(s)),
            |s| held(&s.at_a, |fd| sys::fcntl_lock(fd, libc::F_SETLK, libc::F_UNLCK, 8, 10)).map(|_| ()),
            |s| fcntl_is_taken(s).map(|taken| !taken),
        ),
        check(
            "fcntl lock gone when any handle of the process closes",
            |s| {
                file_open_at_both(s)?;
                take_fcntl(s)
            },
            |s| Ok(sys::close(sys::open(s.a("f"), libc::O_RDONLY, 0)?)?),
            |s| fcntl_is_taken(s).map(|taken| !taken),
        ),
        check(
            "fcntl lock gone with its process",
            file_open_at_both,
            |s| {
                procs::in_child(|| {
                    let fd = sys::open(s.a("f"), libc::O_RDWR, 0)?;
                    sys::fcntl_lock(&fd, libc::F_SETLK, libc::F_WRLCK, 0, 12)?;
                    ensure!(fcntl_is_taken(s)?, "not taken while the process lives");
                    // Ends without closing anything.
                    std::mem::forget(fd);
                    Ok(())
                })?;
                ensure!(!fcntl_is_taken(s)?, "still taken after the process ended");
                Ok(sys::write_file(s.a("done"), b"")?)
            },
            |s| unless_missing(sys::stat(s.b("done")), |_| true),
        ),
    ]
}

fn still_read_at_b(s: &Scene) -> Check<bool> {
    let gone = is_missing(s.b("f"))?;
    let (content, nlink) = held(&s.at_b, |fd| Ok((sys::read_to_end(fd, 0)?, sys::fstat(fd)?.st_nlink)))?;
    ensure!(content == b"hello", "an open file reads {:?}", String::from_utf8_lossy(&content));
    ensure!(nlink == u64::from(!gone), "nlink {nlink}, gone by name: {gone}");
    Ok(gone)
}

fn unlinked() -> Vec<Visible> {
    vec![
        check("unlinked while open for reading", file_read_at_b, |s| Ok(sys::unlink(s.a("f"))?), still_read_at_b),
        check(
            "unlinked while open for writing",
            file_written_at_b,
            |s| Ok(sys::unlink(s.a("f"))?),
            |s| {
                let gone = still_read_at_b(s)?;
                held(&s.at_b, |fd| sys::write_all(fd, b"hello", 0))?;
                Ok(gone)
            },
        ),
        check(
            "renamed over while open",
            file_read_at_b,
            |s| {
                sys::write_file(s.a("g"), b"HELLO")?;
                Ok(sys::rename(s.a("g"), s.a("f"))?)
            },
            |s| {
                let old = held(&s.at_b, |fd| sys::read_to_end(fd, 0))?;
                ensure!(old == b"hello", "the file renamed over reads {:?}", String::from_utf8_lossy(&old));
                reads_new_by_path(s)
            },
        ),
        check(
            "unlinked while open at both, written at one",
            file_open_at_both,
            |s| {
                sys::unlink(s.a("f"))?;
                overwrite_held(s)
            },
            reads_new_by_handle,
        ),
    ]
}
