//! What a scenario found wrong, in words.

use crate::sys::Errno;

#[derive(Debug)]
pub struct Fault(pub String);

pub type Check<T = ()> = Result<T, Fault>;

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault(errno.to_string())
    }
}

pub fn fault<T>(text: String) -> Check<T> {
    Err(Fault(text))
}

/// Says where a call failed.
pub trait At<T> {
    fn at(self, place: impl std::fmt::Display) -> Check<T>;
}

impl<T, E: Into<Fault>> At<T> for Result<T, E> {
    fn at(self, place: impl std::fmt::Display) -> Check<T> {
        self.map_err(|e| Fault(format!("{place}: {}", e.into().0)))
    }
}

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return crate::fault::fault(format!($($text)+));
        }
    };
}
pub(crate) use ensure;
