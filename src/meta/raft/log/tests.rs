use std::fs;
use std::path::Path;
use std::sync::mpsc;

use super::*;

const OWNER: u64 = 7;

fn small() -> LogConfig {
    LogConfig { segment_bytes: 400, recent_bytes: 100, ahead_bytes: 0 }
}

/// Its file ends with its records.
fn one_segment() -> LogConfig {
    LogConfig { ahead_bytes: 0, ..LogConfig::default() }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, OWNER, small()).unwrap()
}

fn entry(term: u64, index: u64) -> Entry {
    let point = LogPoint { term, leader: 1, index };
    Entry {
        point,
        kind: EntryKind::Command,
        payload: Bytes::from(format!("command {term}.{index} {}", "x".repeat(30))),
    }
}

fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index)).collect()
}

/// Runs something that is called back, and waits for the call.
fn wait(start: impl FnOnce(Done) -> io::Result<()>) -> io::Result<()> {
    let (told, heard) = mpsc::channel();
    start(Box::new(move |outcome| told.send(outcome).unwrap()))?;
    heard.recv().unwrap()
}

fn append(log: &Log, entries: Vec<Entry>) {
    wait(|done| log.append(entries, done)).unwrap();
}

fn truncate(log: &Log, index: u64) {
    wait(|done| log.truncate_from(index, done)).unwrap();
}

fn all(log: &Log) -> Vec<Entry> {
    log.read(0..u64::MAX, usize::MAX).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in files(from) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn entries_survive_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..20));
    append(&log, entries(2, 20..40));
    assert_eq!(all(&log), [entries(1, 0..20), entries(2, 20..40)].concat());
    assert!(files(dir.path()).len() > 3, "the segments are meant to be many");
    drop(log);
    let log = open(dir.path());
    assert_eq!(all(&log), [entries(1, 0..20), entries(2, 20..40)].concat());
    assert_eq!(log.last(), Some(entry(2, 39).point));
    append(&log, entries(2, 40..41));
    assert_eq!(log.range(), 0..41);
}

#[test]
fn zeros_written_ahead_are_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { ahead_bytes: 4096, ..small() };
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    for turn in 0..3 {
        let log = Log::open(dir.path(), OWNER, config).unwrap();
        assert_eq!(all(&log), entries(1, 0..turn * 20));
        append(&log, entries(1, turn * 20..turn * 20 + 20));
        append(&log, vec![]);
        drop(log);
        assert!(size(files(dir.path()).last().unwrap()) > 4096, "they are meant to be there");
    }
    assert!(files(dir.path()).iter().filter(|path| size(path) > 4096).count() > 1, "in earlier segments too");
    // A record of which only a part came to the disk lies before zeros now.
    let last = files(dir.path()).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in 1..20 {
        let torn = tempfile::tempdir().unwrap();
        copy(dir.path(), torn.path());
        let mut bytes = bytes.clone();
        bytes[end - cut..].fill(0);
        fs::write(torn.path().join(last.file_name().unwrap()), bytes).unwrap();
        assert_eq!(all(&Log::open(torn.path(), OWNER, config).unwrap()), entries(1, 0..59));
    }
}

#[test]
fn reads_keep_bounds_and_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..30));
    assert_eq!(log.read(5..9, usize::MAX).unwrap(), entries(1, 5..9));
    assert_eq!(log.read(28..99, usize::MAX).unwrap(), entries(1, 28..30));
    assert_eq!(log.read(40..50, usize::MAX).unwrap(), []);
    assert_eq!(log.read(3..30, 1).unwrap(), entries(1, 3..4), "the first is read however large it is");
    assert_eq!(log.read(3..30, 100).unwrap(), entries(1, 3..5));
    assert!(log.is_recent(&(29..30)) && !log.is_recent(&(0..30)));
}

#[test]
fn entries_must_follow() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..3));
    assert!(log.append(entries(1, 4..5), Box::new(|_| ())).is_err());
    assert!(log.append(entries(1, 2..3), Box::new(|_| ())).is_err());
    append(&log, entries(1, 3..4));
    assert_eq!(log.range(), 0..4);
}

#[test]
fn truncated_entries_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..30));
    truncate(&log, 12);
    append(&log, entries(2, 12..15));
    let expected = [entries(1, 0..12), entries(2, 12..15)].concat();
    assert_eq!(all(&log), expected);
    drop(log);
    let log = open(dir.path());
    assert_eq!(all(&log), expected);
    truncate(&log, 0);
    assert_eq!(log.last(), None);
    drop(log);
    assert_eq!(open(dir.path()).range(), 0..0);
}

#[test]
fn purged_segments_go_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let vote = VoteRecord { term: 3, leader: 2, committed: true };
    wait(|done| log.save_vote(vote, done)).unwrap();
    append(&log, entries(1, 0..50));
    log.save_committed(Some(entry(1, 44).point)).unwrap();
    let before = files(dir.path()).len();
    log.purge(entry(1, 30).point).unwrap();
    append(&log, entries(1, 50..51));
    // Segments go after everybody was told: with the log closed they are gone.
    drop(log);
    assert!(files(dir.path()).len() < before, "nothing was deleted");
    let log = open(dir.path());
    assert_eq!(log.range(), 31..51);
    assert_eq!(all(&log), entries(1, 31..51));
    let expected = Standing { vote: Some(vote), committed: Some(entry(1, 44).point), purged: Some(entry(1, 30).point) };
    assert_eq!(log.standing(), expected);
}

#[test]
fn a_purge_past_the_end_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..20));
    log.purge(entry(4, 99).point).unwrap();
    assert_eq!((log.range(), log.last()), (100..100, Some(entry(4, 99).point)));
    append(&log, entries(4, 100..103));
    drop(log);
    let log = open(dir.path());
    assert_eq!(all(&log), entries(4, 100..103));
    truncate(&log, 100);
    drop(log);
    assert_eq!(open(dir.path()).last(), Some(entry(4, 99).point));
}

#[test]
fn a_second_opener_and_another_node_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert!(matches!(Log::open(dir.path(), OWNER, small()), Err(LogError::Busy(_))));
    drop(log);
    assert!(matches!(Log::open(dir.path(), 8, small()), Err(LogError::Foreign(_, OWNER))));
    open(dir.path());
}

#[test]
fn a_closed_log_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(entries(1, 0..3), Box::new(|_| ())).unwrap();
    log.close();
    assert!(log.append(entries(1, 3..4), Box::new(|_| ())).is_err());
    drop(log);
    assert_eq!(all(&open(dir.path())), entries(1, 0..3));
}

/// Every image a crash can leave of the last segment, by length: a prefix of whole records, and never less than was
/// acknowledged within that length.
#[test]
fn every_cut_leaves_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), OWNER, one_segment()).unwrap();
    let path = files(dir.path()).pop().unwrap();
    let mut acknowledged = vec![fs::metadata(&path).unwrap().len()];
    for index in 0..6 {
        append(&log, entries(1, index..index + 1));
        acknowledged.push(fs::metadata(&path).unwrap().len());
    }
    truncate(&log, 5);
    append(&log, entries(2, 5..8));
    drop(log);
    let whole = fs::read(&path).unwrap();
    let image = tempfile::tempdir().unwrap();
    for cut in 0..=whole.len() {
        fs::write(image.path().join(path.file_name().unwrap()), &whole[..cut]).unwrap();
        let log = Log::open(image.path(), OWNER, one_segment()).unwrap();
        let kept = all(&log);
        let whole_entries = acknowledged.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
        let is_prefix = kept == entries(1, 0..kept.len() as u64);
        let is_later = kept.starts_with(&entries(1, 0..5)) && cut as u64 > acknowledged[6];
        assert!(is_prefix || is_later, "cut at {cut}");
        assert!(kept.len() >= whole_entries.min(5), "cut at {cut} lost what was acknowledged");
        // And the log goes on from there, over another start.
        let next = log.range().end;
        append(&log, entries(9, next..next + 1));
        drop(log);
        assert_eq!(open(image.path()).range().end, next + 1);
    }
}

/// A bad byte among records that others vouch for is damage; behind the last vouched-for place it is a torn tail.
#[test]
fn damage_in_the_middle_is_refused_and_a_torn_tail_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), OWNER, one_segment()).unwrap();
    for index in 0..4 {
        append(&log, entries(1, index..index + 1));
    }
    drop(log);
    let path = files(dir.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let record = (whole.len() - 200) / 4;
    let image = tempfile::tempdir().unwrap();
    let target = image.path().join(path.file_name().unwrap());
    let (mut refused, mut cut) = (0, 0);
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        fs::write(&target, &damaged).unwrap();
        match Log::open(image.path(), OWNER, small()) {
            Err(LogError::Damaged(..)) => {
                refused += 1;
                assert_eq!(fs::read(&target).unwrap(), damaged, "a refused log was changed");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok(log) => {
                cut += 1;
                assert!(at > whole.len() - 2 * record, "byte {at} was acknowledged, and later records say so");
                assert_eq!(log.range(), 0..3);
            }
        }
    }
    assert!(refused > 50 && cut > 10, "{refused} refused, {cut} cut");
}

#[test]
fn damage_in_an_older_segment_and_a_missing_one_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..40));
    drop(log);
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    let older = files(image.path())[1].clone();
    let mut bytes = fs::read(&older).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&older, &bytes).unwrap();
    assert!(matches!(Log::open(image.path(), OWNER, small()), Err(LogError::Damaged(..))));
    fs::remove_file(&older).unwrap();
    assert!(matches!(Log::open(image.path(), OWNER, small()), Err(LogError::Missing(_))));
}

#[test]
fn a_segment_in_the_making_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..20));
    drop(log);
    let count = files(dir.path()).len();
    for length in [0, 1, 31] {
        fs::write(dir.path().join(format!("{:016x}.log", count + 1)), vec![0; length]).unwrap();
        let log = open(dir.path());
        assert_eq!(all(&log), entries(1, 0..20));
        drop(log);
        assert_eq!(files(dir.path()).len(), count);
    }
    let log = open(dir.path());
    append(&log, entries(1, 20..40));
    drop(log);
    assert_eq!(all(&open(dir.path())), entries(1, 0..40));
}

#[test]
fn damage_under_a_running_log_is_an_error_of_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..40));
    let first = files(dir.path())[0].clone();
    let mut bytes = fs::read(&first).unwrap();
    bytes[230] ^= 1;
    fs::write(&first, &bytes).unwrap();
    assert!(log.read(0..5, usize::MAX).is_err());
    assert_eq!(log.read(30..35, usize::MAX).unwrap(), entries(1, 30..35));
}

/// Many callers, one disk: each is called back once, after its entries are readable, and fewer syncs than calls do.
#[test]
fn concurrent_appends_are_all_called_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (told, heard) = mpsc::channel();
    for index in 0..500 {
        let told = told.clone();
        log.append(entries(1, index..index + 1), Box::new(move |done| told.send((index, done.is_ok())).unwrap()))
            .unwrap();
    }
    let heard: Vec<(u64, bool)> = heard.iter().take(500).collect();
    assert_eq!(heard, (0..500).map(|index| (index, true)).collect::<Vec<_>>(), "in order, each once");
    assert_eq!(all(&log).len(), 500);
}

/// Random histories against a plain model, with reopens from what is on disk.
#[test]
fn random_histories_match_a_model() {
    for seed in 1..8_u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let (mut model, mut first, mut purged): (Vec<Entry>, u64, Option<LogPoint>) = (Vec::new(), 0, None);
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            (chance >> 11) % bound
        };
        for step in 0..120 {
            let end = first + model.len() as u64;
            match below(10) {
                0..=4 => {
                    let new = entries(step, end..end + below(6));
                    append(&log, new.clone());
                    model.extend(new);
                }
                5 => {
                    let from = first + below(model.len() as u64 + 1);
                    truncate(&log, from);
                    model.truncate((from - first) as usize);
                }
                6 if !model.is_empty() => {
                    let count = 1 + below(model.len() as u64);
                    purged = Some(model[count as usize - 1].point);
                    log.purge(model[count as usize - 1].point).unwrap();
                    model.drain(..count as usize);
                    first += count;
                }
                7 if below(4) == 0 => {
                    let point = LogPoint { term: step, leader: 1, index: end + below(9) };
                    log.purge(point).unwrap();
                    (purged, first) = (Some(point), point.index + 1);
                    model.clear();
                }
                _ => {
                    drop(log);
                    log = open(dir.path());
                }
            }
            assert_eq!(all(&log), model, "seed {seed}, step {step}");
            assert_eq!(log.last(), model.last().map(|entry| entry.point).or(purged), "seed {seed}, step {step}");
        }
    }
}

/// Nobody is told that something is on disk when it is not, and nothing is accepted after it failed.
#[test]
fn a_failed_write_poisons_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("log");
    let log = open(&place);
    append(&log, entries(1, 0..3));
    // The next segment cannot be made.
    fs::remove_dir_all(&place).unwrap();
    let outcome = wait(|done| log.append(entries(1, 3..20), done));
    assert!(outcome.is_err());
    assert!(log.append(entries(1, 20..21), Box::new(|_| ())).is_err());
    assert!(log.save_vote(VoteRecord { term: 1, leader: 1, committed: false }, Box::new(|_| ())).is_err());
    assert!(log.purge(entry(1, 2).point).is_err());
}

#[test]
fn what_may_be_in_memory_only_is_made_durable_at_open() {
    use std::cell::RefCell;
    use std::time::SystemTime;
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entries(1, 0..20));
    append(&log, entries(1, 20..21));
    drop(log);
    let before: Vec<Vec<u8>> = files(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let failing = scan::open(dir.path(), OWNER, &|_| Err(io::Error::other("the device is gone")));
    assert!(matches!(failing, Err(LogError::Io(_, _))), "a log was opened that may not be on disk");

    let last = files(dir.path()).pop().unwrap();
    fs::OpenOptions::new().write(true).open(&last).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let synced = RefCell::new(Vec::new());
    let sync = |file: &File| {
        synced.borrow_mut().push(file.metadata()?.modified()?);
        Ok(())
    };
    let (state, _) = scan::open(dir.path(), OWNER, &sync).unwrap();
    assert_eq!(state.range(), 0..21);
    assert!(synced.borrow().len() == 1 && synced.borrow()[0] > SystemTime::UNIX_EPOCH, "{synced:?}");
    let after: Vec<Vec<u8>> = files(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after);
}

/// What users write is in the log as it is, records that they have made up too.
#[test]
fn a_record_inside_a_torn_one_vouches_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::open(dir.path(), OWNER, one_segment());
    let log = open().unwrap();
    append(&log, entries(1, 0..3));
    let path = files(dir.path()).pop().unwrap();
    let at = fs::metadata(&path).unwrap().len();
    let mut forged = Vec::new();
    record::encode(&mut forged, &Record::Truncate(0), u32::MAX, &Salt::default(), 0);
    let point = LogPoint { term: 1, leader: 1, index: 3 };
    let entry = Entry { point, kind: EntryKind::Command, payload: forged.into() };
    append(&log, vec![entry]);
    drop(log);
    // The page with its head never came.
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0; HEAD_BYTES], at).unwrap();
    assert_eq!(all(&open().unwrap()), entries(1, 0..3));
}
