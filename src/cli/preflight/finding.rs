//! What was found, in one sentence, and how it is mended.

use std::fmt::{self, Display};

use serde::Serialize;

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It will run, and something is worse than it need be.
    Note,
    /// It will not run, or not do what it is for.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub about: &'static str,
    pub state: State,
    pub says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    pub fn ok(about: &'static str, says: impl Display) -> Finding {
        Finding { about, state: State::Ok, says: says.to_string(), mend: None }
    }

    pub fn note(about: &'static str, says: impl Display, mend: impl Display) -> Finding {
        Finding { about, state: State::Note, says: says.to_string(), mend: Some(mend.to_string()) }
    }

    pub fn missing(about: &'static str, says: impl Display, mend: impl Display) -> Finding {
        Finding { about, state: State::Missing, says: says.to_string(), mend: Some(mend.to_string()) }
    }
}

impl Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Missing => "missing",
        };
        write!(out, "{state:<8} {}", self.says)?;
        self.mend.as_ref().map_or(Ok(()), |mend| write!(out, ": {mend}"))
    }
}
