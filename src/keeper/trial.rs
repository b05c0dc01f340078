//! Whether the program that is there could go on, asked before the client leaves: a release that cannot read what this one leaves, or
//! its settings, or is no program at all, would have everybody wait who uses the mount.

use std::time::{Duration, Instant};

use super::socket::Socket;
use super::watch::kill;
use super::{FITS, REFUSES};

/// Who has not said by then that it fits does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that is given what a client would be, and is to say whether it fits.
pub struct Trial {
    /// 0: it has ended.
    pub pid: libc::pid_t,
    pub socket: Option<Socket>,
    said: Option<Said>,
    until: Instant,
}

/// It has copies of all that is kept: a mount that has ended would be kept by it.
impl Drop for Trial {
    fn drop(&mut self) {
        if self.pid > 0 {
            kill(self.pid, libc::SIGKILL);
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Fits,
    Refuses(String),
}

impl Trial {
    pub fn of(pid: libc::pid_t, socket: Socket) -> Trial {
        Trial { pid, socket: Some(socket), said: None, until: Instant::now() + PATIENCE }
    }

    /// Hears one message. What it says first holds.
    pub fn listen(&mut self) {
        let Some(socket) = &self.socket else { return };
        let message = match socket.receive() {
            Ok(Some((message, _))) => message,
            Ok(None) | Err(_) => {
                self.socket = None;
                return;
            }
        };
        let said = match message.split_once(' ').unwrap_or((&message, "")) {
            (FITS, _) => Said::Fits,
            (REFUSES, why) => Said::Refuses(why.into()),
            _ => Said::Refuses(format!("it says {message:?}, which means nothing")),
        };
        self.said.get_or_insert(said);
    }

    /// What it has said. One that has not by now may have a mistake of its own.
    pub fn said(&self) -> Option<Said> {
        self.said.clone().or_else(|| (Instant::now() >= self.until).then(|| Said::Refuses("it says nothing".into())))
    }

    /// Its process has ended so.
    pub fn ended(&mut self, how: &str) -> Said {
        self.pid = 0;
        while self.socket.is_some() {
            self.listen();
        }
        self.said.take().unwrap_or_else(|| Said::Refuses(format!("it {how}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> (Trial, Socket) {
        let (ours, theirs) = Socket::pair().unwrap();
        // It is no process that would have to be ended.
        (Trial::of(0, ours), theirs)
    }

    fn refuses(why: &str) -> Option<Said> {
        Some(Said::Refuses(why.to_string()))
    }

    #[test]
    fn what_is_said_first_holds() {
        let (mut trial, other) = self::trial();
        assert_eq!(trial.said(), None);
        for word in ["refuses what is kept is of version 9", "fits"] {
            other.send(word, &[]).unwrap();
            trial.listen();
        }
        assert_eq!(trial.said(), refuses("what is kept is of version 9"));
    }

    #[test]
    fn who_fits_may_end_in_any_way() {
        let (mut trial, other) = self::trial();
        other.send("fits", &[]).unwrap();
        drop(other);
        assert_eq!(trial.ended("has ended with 1"), Said::Fits);
    }

    #[test]
    fn who_ends_without_a_word_or_means_nothing_does_not_fit() {
        let (mut trial, other) = self::trial();
        drop(other);
        assert_eq!(Some(trial.ended("has ended with 2")), refuses("it has ended with 2"));
        let (mut trial, other) = self::trial();
        other.send("what", &[]).unwrap();
        trial.listen();
        assert_eq!(trial.said(), refuses("it says \"what\", which means nothing"));
    }

    #[test]
    fn who_says_nothing_in_time_does_not_fit() {
        let (mut trial, _other) = self::trial();
        trial.until = Instant::now();
        assert_eq!(trial.said(), refuses("it says nothing"));
    }
}
