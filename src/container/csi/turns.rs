//! One call at a time for each volume.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;

#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashSet<String>>>);

/// Until it is dropped no other call about the volume is begun.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    volume: String,
}

impl Turns {
    /// # Errors
    /// `ABORTED`: another call about the volume is under way.
    pub fn take(&self, volume: &str) -> Result<Turn, Status> {
        if self.0.lock().insert(volume.to_string()) {
            return Ok(Turn { turns: self.clone(), volume: volume.to_string() });
        }
        Err(Status::aborted(format!("another call about volume {volume} is under way")))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.lock().remove(&self.volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_about_a_volume_at_a_time() {
        let turns = Turns::default();
        let turn = turns.take("a").unwrap();
        assert_eq!(turns.take("a").unwrap_err().code(), tonic::Code::Aborted);
        drop(turns.take("b").unwrap());
        drop(turn);
        turns.take("a").unwrap();
    }
}
