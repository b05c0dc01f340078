//! Reads the log, then the filesystem, and says what is not as it must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{CheckArguments, PLACE_BYTES, PLACES, Work, log_path, record_of};
use crate::fault::{At, Check, Fault, ensure};
use crate::record::{self, HEADER_BYTES};
use crate::sys;

/// What one writer did, by number.
#[derive(Default)]
pub struct History {
    acknowledged: BTreeMap<u64, Work>,
    /// Begun last and not acknowledged: happened, or did not.
    open: Option<(u64, Work)>,
}

impl History {
    pub fn read(path: &Path) -> Check<History> {
        let text = fs::read_to_string(path).map_err(|e| Fault(format!("{}: {e}", path.display())))?;
        let mut history = History::default();
        for line in text.lines() {
            history.add(line).at(format_args!("{}: {line:?}", path.display()))?;
        }
        Ok(history)
    }

    fn add(&mut self, line: &str) -> Check {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |place: usize| words.get(place).and_then(|w| w.parse().ok()).ok_or(Fault("no number".into()));
        match words[0] {
            "i" => {
                let kind = words.get(2).copied().unwrap_or_default();
                self.open = Some((number(1)?, Work::parse(kind, number(3)?)?));
            }
            "a" => {
                let (begun, work) = self.open.take().ok_or(Fault("acknowledged, never begun".into()))?;
                ensure!(begun == number(1)?, "operation {begun} was under way");
                self.acknowledged.insert(begun, work);
            }
            // Failed: stays open.
            "e" => {}
            other => return crate::fault::fault(format!("no event {other:?}")),
        }
        Ok(())
    }

    fn numbers(&self, wanted: impl Fn(Work) -> bool) -> Vec<u64> {
        self.acknowledged.iter().filter(|(_, work)| wanted(**work)).map(|(number, _)| *number).collect()
    }

    /// Acknowledged and not taken away again.
    pub fn puts(&self) -> Vec<u64> {
        let removed: BTreeSet<u64> = self.removed().into_iter().collect();
        self.numbers(|w| matches!(w, Work::Put { .. })).into_iter().filter(|n| !removed.contains(n)).collect()
    }

    pub fn removed(&self) -> Vec<u64> {
        let removed = |w: &Work| if let Work::Remove { put } = w { Some(*put) } else { None };
        self.acknowledged.values().filter_map(removed).collect()
    }

    pub fn dirs(&self) -> Vec<u64> {
        self.numbers(|w| w == Work::Mkdir)
    }

    /// The places that were written.
    pub fn places(&self) -> Vec<u64> {
        let place = |w: &Work| if let Work::Over { place } = w { Some(*place) } else { None };
        self.acknowledged.values().filter_map(place).collect()
    }
}

pub fn run(arguments: &CheckArguments) -> Check<String> {
    let (mut acknowledged, mut happened, mut cut) = (0, 0, 0);
    let mut writers = 0;
    while log_path(&arguments.log, writers).exists() {
        let history = History::read(&log_path(&arguments.log, writers))?;
        for dir in &arguments.dir {
            let dir = dir.join(format!("writer-{writers}"));
            let checked = Checked { writer: writers, dir: &dir, history: &history };
            let outcome = checked.all().at(dir.display())?;
            happened += u64::from(outcome.open_happened);
            cut += u64::from(outcome.tail_was_cut);
        }
        acknowledged += history.acknowledged.len() as u64;
        writers += 1;
    }
    ensure!(writers > 0, "no log {}", log_path(&arguments.log, 0).display());
    ensure!(acknowledged >= arguments.at_least, "only {acknowledged} operations were acknowledged: proves nothing");
    Ok(format!("checked={acknowledged} unacknowledged_but_done={happened} unacknowledged_cut={cut}"))
}

#[derive(Default)]
struct Outcome {
    open_happened: bool,
    tail_was_cut: bool,
}

struct Checked<'a> {
    writer: usize,
    dir: &'a Path,
    history: &'a History,
}

impl Checked<'_> {
    fn all(&self) -> Check<Outcome> {
        let mut outcome = Outcome::default();
        self.log(&mut outcome)?;
        self.names(&mut outcome)?;
        for number in self.history.puts() {
            if self.removal_is_open(number) && !self.path("put", number).exists() {
                continue;
            }
            self.put(number)?;
        }
        self.places(&mut outcome)?;
        Ok(outcome)
    }

    fn path(&self, kind: &str, number: u64) -> PathBuf {
        self.dir.join(format!("{kind}-{number}"))
    }

    fn removal_is_open(&self, number: u64) -> bool {
        self.history.open.is_some_and(|(_, work)| work == Work::Remove { put: number })
    }

    fn payload_of(&self, number: u64) -> Option<usize> {
        let open = self.history.open.filter(|(n, _)| *n == number).map(|(_, work)| work);
        match self.history.acknowledged.get(&number).copied().or(open) {
            Some(Work::Append { payload_bytes } | Work::Put { payload_bytes }) => Some(payload_bytes),
            _ => None,
        }
    }

    /// Every acknowledged record, once, in order; behind them at most the one that was under way, which may be cut.
    fn log(&self, outcome: &mut Outcome) -> Check {
        let content = sys::read_file(self.dir.join("log"))?;
        let mut at = 0;
        for number in self.history.numbers(|w| matches!(w, Work::Append { .. })) {
            let record = record_of(self.writer, number, self.payload_of(number).unwrap_or(0));
            let end = (at + record.len()).min(content.len());
            let shown = record::decode(&content[at..]).map(|(tag, _)| tag.sequence).map_err(|f| f.0);
            ensure!(content[at..end] == record, "log at {at}: record {number} is due, there is {shown:?}");
            at = end;
        }
        let rest = &content[at..];
        let Some((number, Work::Append { payload_bytes })) = self.history.open else {
            ensure!(rest.is_empty(), "log: {} bytes more than was ever written", rest.len());
            return Ok(());
        };
        let record = record_of(self.writer, number, payload_bytes);
        ensure!(record.starts_with(rest), "log at {at}: {} bytes that nobody wrote", rest.len());
        outcome.open_happened |= rest == record;
        outcome.tail_was_cut |= !rest.is_empty() && rest != record;
        Ok(())
    }

    /// Exactly the names that must be there, and those of the operation that was under way, or not.
    fn names(&self, outcome: &mut Outcome) -> Check {
        let mut must: BTreeSet<String> = ["log".to_string(), "places".to_string()].into();
        must.extend(self.history.puts().iter().map(|n| format!("put-{n}")));
        must.extend(self.history.dirs().iter().map(|n| format!("dir-{n}")));
        let mut may = BTreeSet::new();
        match self.history.open {
            Some((n, Work::Put { .. })) => may.extend([format!("fresh-{n}"), format!("put-{n}")]),
            Some((n, Work::Mkdir)) => may.extend([format!("dir-{n}")]),
            Some((_, Work::Remove { put })) => {
                must.remove(&format!("put-{put}"));
                may.insert(format!("put-{put}"));
            }
            _ => {}
        }
        let listed: BTreeSet<String> =
            sys::list(self.dir)?.into_iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect();
        let lost: Vec<_> = must.difference(&listed).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let odd: Vec<_> = listed.iter().filter(|n| !must.contains(*n) && !may.contains(*n)).collect();
        ensure!(odd.is_empty(), "there, and must not be: {odd:?}");
        if let Some((number, Work::Put { .. })) = self.history.open
            && listed.contains(&format!("put-{number}"))
        {
            // It was synced before it got this name.
            self.put(number)?;
            outcome.open_happened = true;
        }
        Ok(())
    }

    fn put(&self, number: u64) -> Check {
        let path = self.path("put", number);
        let content = sys::read_file(&path).at(path.display())?;
        let due = record_of(self.writer, number, self.payload_of(number).unwrap_or(0));
        ensure!(content == due, "{}: {} bytes, not the {} that were synced", path.display(), content.len(), due.len());
        Ok(())
    }

    /// Each holds what was acknowledged last, or what was under way.
    fn places(&self, outcome: &mut Outcome) -> Check {
        let content = sys::read_file(self.dir.join("places"))?;
        ensure!(content.len() == PLACES as usize * PLACE_BYTES, "places: {} bytes", content.len());
        for (place, found) in content.chunks(PLACE_BYTES).enumerate() {
            let here = Work::Over { place: place as u64 };
            let last = self.history.numbers(|w| w == here).pop().unwrap_or(0);
            let open = self.history.open.filter(|(_, work)| *work == here).map(|(number, _)| number);
            let is = |number| found == record_of(self.writer, number, PLACE_BYTES - HEADER_BYTES);
            let happened = open.is_some_and(is);
            outcome.open_happened |= happened;
            let shown = record::decode(found).map(|(tag, _)| tag.sequence).map_err(|f| f.0);
            ensure!(happened || is(last), "place {place}: record {last} is due, there is {shown:?}");
        }
        Ok(())
    }
}
