//! Messages with descriptors, between the keeper and its client.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A longer message is not taken: a path, and the options of a mount, have 4 KiB each at most.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Who connects beyond that waits.
const BACKLOG: libc::c_int = 64;
/// The kernel hands over no more at once.
const DESCRIPTORS_MAX: usize = 253;

/// One end of a connection that keeps the bounds of messages.
#[derive(Debug)]
pub struct Socket {
    file: OwnedFd,
}

/// What arrived; nothing when the other end is gone.
pub type Message = Option<(String, Vec<OwnedFd>)>;

impl Socket {
    pub fn pair() -> io::Result<(Socket, Socket)> {
        let mut ends: [RawFd; 2] = [-1; 2];
        // SAFETY: the call fills two descriptors into an array that has room for them.
        let made =
            unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: two descriptors that the call has made, and that nobody else has.
        let [one, other] = ends.map(|end| Socket { file: unsafe { OwnedFd::from_raw_fd(end) } });
        Ok((one, other))
    }

    /// The other end of a path.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Socket> {
        let (socket, address) = (Socket { file: unconnected(libc::SOCK_SEQPACKET)? }, address_of(path)?);
        socket.connect_to(&address)?;
        Ok(socket)
    }

    /// Where datagrams are taken: nothing comes back.
    ///
    /// # Errors
    /// Nobody takes any there.
    pub fn datagrams_to(path: &Path) -> io::Result<Socket> {
        let (socket, address) = (Socket { file: unconnected(libc::SOCK_DGRAM)? }, address_of(path)?);
        socket.connect_to(&address)?;
        Ok(socket)
    }

    fn connect_to(&self, address: &libc::sockaddr_un) -> io::Result<()> {
        // SAFETY: an open socket, and an address with its size.
        let connected =
            unsafe { libc::connect(self.number(), (&raw const *address).cast(), size_of_val(address) as u32) };
        if connected < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub fn of(file: OwnedFd) -> Socket {
        Socket { file }
    }

    pub fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// # Errors
    /// The other end is gone, or there are too many descriptors.
    pub fn send(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors at once"));
        }
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let bytes = mem::size_of_val(&numbers[..]);
        let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        let mut control = control_buffer();
        // SAFETY: a message header of zeros is a valid empty one.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if !numbers.is_empty() {
            header.msg_control = control.as_mut_ptr().cast();
            // SAFETY: computes a size.
            header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes as u32) } as usize;
            // SAFETY: the control buffer has room for one header and all numbers, and is aligned for its headers.
            unsafe {
                let first = libc::CMSG_FIRSTHDR(&header);
                (*first).cmsg_level = libc::SOL_SOCKET;
                (*first).cmsg_type = libc::SCM_RIGHTS;
                (*first).cmsg_len = libc::CMSG_LEN(bytes as u32) as usize;
                std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), bytes);
            }
        }
        // SAFETY: the header points to buffers that live to the end of this function, with their lengths.
        if unsafe { libc::sendmsg(self.file.as_raw_fd(), &header, libc::MSG_NOSIGNAL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// What the host says.
    pub fn receive(&self) -> io::Result<Message> {
        let mut text = [0u8; MESSAGE_BYTES_MAX];
        let mut part = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
        let mut control = control_buffer();
        // SAFETY: a message header of zeros is a valid empty one.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of_val(&control[..]);
        // SAFETY: the header points to buffers that live to the end of this function, with their lengths.
        let received = unsafe { libc::recvmsg(self.file.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let descriptors = descriptors_of(&header);
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        if received == 0 {
            return Ok(None);
        }
        Ok(Some((String::from_utf8_lossy(&text[..received]).into_owned(), descriptors)))
    }
}

/// Where others connect.
#[derive(Debug)]
pub struct Listener {
    file: OwnedFd,
}

impl Listener {
    /// # Errors
    /// The path is taken, or too long.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        let (file, address) = (unconnected(libc::SOCK_SEQPACKET)?, address_of(path)?);
        // SAFETY: an open socket, and an address with its size.
        let bound = unsafe {
            let size = size_of_val(&address) as u32;
            libc::bind(file.as_raw_fd(), (&raw const address).cast(), size) == 0
                && libc::listen(file.as_raw_fd(), BACKLOG) == 0
        };
        if bound { Ok(Listener { file }) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for somebody.
    ///
    /// # Errors
    /// What the host says.
    pub fn accept(&self) -> io::Result<Socket> {
        let null = std::ptr::null_mut();
        // SAFETY: an open socket, and no place for the other's address.
        let file = unsafe { libc::accept4(self.file.as_raw_fd(), null, null.cast(), libc::SOCK_CLOEXEC) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the call has made, and that nobody else has.
        Ok(Socket { file: unsafe { OwnedFd::from_raw_fd(file) } })
    }
}

fn unconnected(kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let file = unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the call has made, and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

fn address_of(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: numbers alone, for which zeros are good values.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // The last stays zero.
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of a socket is 107 bytes at most"));
    }
    address.sun_path.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from as libc::c_char);
    Ok(address)
}

/// Aligned for the headers in it.
fn control_buffer() -> Vec<u64> {
    // SAFETY: computes a size.
    let bytes = unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) } as usize;
    vec![0; bytes.div_ceil(size_of::<u64>())]
}

fn descriptors_of(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: `header` was filled by recvmsg, and its control buffer is aligned for the headers in it; what an SCM_RIGHTS header
    // carries are descriptors that are ours now.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(header);
        while !part.is_null() {
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*part).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let first = libc::CMSG_DATA(part).cast::<RawFd>();
                for n in 0..bytes / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(first.add(n).read_unaligned()));
                }
            }
            part = libc::CMSG_NXTHDR(header, part);
        }
    }
    descriptors
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        let (one, other) = Socket::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"here").unwrap();
        file.rewind().unwrap();
        one.send("keep it", &[file.as_fd(), file.as_fd()]).unwrap();
        one.send("go", &[]).unwrap();
        let (text, mut descriptors) = other.receive().unwrap().unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("keep it", 2));
        let mut read = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut read).unwrap();
        assert_eq!(read, "here");
        assert_eq!(other.receive().unwrap().unwrap().0, "go");
        one.send(&"x".repeat(MESSAGE_BYTES_MAX), &[]).unwrap();
        assert_eq!(other.receive().unwrap().unwrap().0.len(), MESSAGE_BYTES_MAX);
        one.send(&"x".repeat(MESSAGE_BYTES_MAX + 1), &[]).unwrap();
        assert!(other.receive().is_err(), "it was cut");
        drop(one);
        assert!(other.receive().unwrap().is_none());
    }
}
