//! The plugin dies before and after each step of each call, and the next one goes on; or a call is given up and the plugin lives. The call
//! is made again, or forgotten by Docker. Nothing may be wrong then, and in the end nothing may be left.

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;

use self::world::{Asked, Cut, Docker, World};
use super::driver::DriverError;
use super::protocol::Request;

/// What happens on a host, as Docker and its users have it. One volume: its name is in the story.
#[derive(Clone, Copy, Debug)]
enum Event {
    Create,
    /// A container is to have the volume, by this name of the use. It is not seen yet.
    Mount(&'static str),
    /// That container runs.
    Runs(&'static str),
    /// One is to have it, and another has it to itself.
    IsRefused(&'static str),
    /// Docker ends a use that goes on.
    Copied(&'static str),
    /// The container has ended.
    Ends(&'static str),
    /// The plugin is killed while it has nothing to do.
    Dies,
    /// More than it takes to forget a use.
    TimePasses,
    Remove,
}

use Event::{Copied, Create, Dies, Ends, IsRefused, Mount, Remove, Runs, TimePasses};

const SHARED: &[Event] = &[
    Create,
    Mount("a"),
    Runs("a"),
    Mount("b"),
    Runs("b"),
    Ends("a"),
    Ends("b"),
    Mount("c"),
    Runs("c"),
    Ends("c"),
    Remove,
];
const KEPT: &[Event] =
    &[Create, Mount("a"), Runs("a"), TimePasses, Ends("a"), Mount("b"), Runs("b"), TimePasses, Ends("b")];
const SLOW: &[Event] = &[
    Create,
    Mount("a"),
    Dies,
    Runs("a"),
    Mount("b"),
    Dies,
    Runs("b"),
    Dies,
    Ends("a"),
    Dies,
    TimePasses,
    Ends("b"),
    Dies,
    Remove,
];
const COPIED: &[Event] = &[
    Create,
    Mount("a"),
    Runs("a"),
    Mount("a"),
    Copied("a"),
    TimePasses,
    Mount("b"),
    Runs("b"),
    Copied("a"),
    Ends("a"),
    Ends("b"),
    Remove,
];
const FOR_ONE: &[Event] = &[
    Create,
    Mount("a"),
    Runs("a"),
    IsRefused("b"),
    TimePasses,
    IsRefused("b"),
    Ends("a"),
    Mount("b"),
    Dies,
    IsRefused("a"),
    Runs("b"),
    Ends("b"),
    Remove,
];
const STORIES: [(&str, &[Event]); 5] =
    [("shared", SHARED), ("kept", KEPT), ("slow", SLOW), ("copied", COPIED), ("rwop", FOR_ONE)];

/// A story under way. Uses that Docker has forgotten are begun again by other names.
struct Play {
    world: World,
    volume: &'static str,
    docker: Docker,
    names: BTreeMap<&'static str, String>,
}

impl Play {
    /// How many of the ends have come.
    fn run(story: (&'static str, &[Event]), docker: Docker, cuts: &[(Cut, usize)]) -> usize {
        let world = World::new(story.0, cuts);
        let mut play = Play { world, volume: story.0, docker, names: BTreeMap::new() };
        for event in story.1 {
            play.happens(*event);
            play.world.check();
        }
        let is_removed = matches!(story.1.last(), Some(Remove));
        play.world.check_end(is_removed)
    }

    fn request(&self, id: &'static str) -> Request {
        let id = self.names.get(id).cloned().unwrap_or_else(|| id.to_string());
        let opts = (self.volume == "rwop").then(|| BTreeMap::from([("access".to_string(), "rwop".to_string())]));
        Request { name: self.volume.to_string(), id, opts }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Dies => self.world.dies(),
            TimePasses => self.world.wait_until_forgotten(),
            Runs(id) => self.world.runs(&self.request(id)),
            Ends(id) | Copied(id) => {
                if let Ends(id) = event {
                    self.world.ends(&self.request(id));
                }
                // Who has forgotten a use does not end it.
                while self.ask("Unmount", id).is_none() && self.docker != Docker::Forgets {}
            }
            Create => self.until_done("Create", ""),
            Remove => self.until_done("Remove", ""),
            Mount(id) => self.mounts(id),
            IsRefused(id) => loop {
                match self.ask_of("Mount", id) {
                    Asked::Answered(answer) => {
                        break assert!(matches!(answer, Err(DriverError::ForOne(_))), "{answer:?}");
                    }
                    Asked::Lost => {}
                }
            },
        }
    }

    /// A call is made again as it was, and by Docker's user with another name for the use, but to copy into a container that goes on.
    fn mounts(&mut self, id: &'static str) {
        let mut has_waited = false;
        loop {
            match self.ask_of("Mount", id) {
                Asked::Answered(Ok(answer)) => break self.world.granted(&self.request(id), &answer),
                // By a use that is forgotten, and for no longer than that takes.
                Asked::Answered(Err(DriverError::ForOne(_))) if self.docker == Docker::Forgets && !has_waited => {
                    self.world.wait_until_forgotten();
                    has_waited = true;
                }
                Asked::Answered(Err(error)) => panic!("{id} is not mounted: {error}"),
                Asked::Lost if self.docker == Docker::Forgets && !self.world.has(&self.request(id)) => {
                    let name = format!("{}'", self.request(id).id);
                    self.names.insert(id, name);
                    has_waited = false;
                }
                Asked::Lost => {}
            }
            self.world.check();
        }
    }

    fn until_done(&mut self, call: &'static str, id: &'static str) {
        while self.ask(call, id).is_none() {
            self.world.check();
        }
    }

    /// `None`: there was no answer.
    fn ask(&mut self, call: &'static str, id: &'static str) -> Option<Result<(), DriverError>> {
        match self.ask_of(call, id) {
            Asked::Answered(answer) => {
                assert!(answer.is_ok(), "{call} of {} says {answer:?}", self.volume);
                Some(answer.map(drop))
            }
            Asked::Lost => None,
        }
    }

    fn ask_of(&mut self, call: &'static str, id: &'static str) -> Asked {
        let request = self.request(id);
        self.world.ask(call, &request)
    }
}

#[test]
fn every_story_ends_well() {
    for story in STORIES {
        Play::run(story, Docker::AsksAgain, &[]);
    }
}

fn ways() -> impl Iterator<Item = (Docker, Cut)> {
    [Docker::AsksAgain, Docker::Forgets].into_iter().flat_map(|docker| Cut::ALL.map(move |cut| (docker, cut)))
}

/// Each step is the last of a plugin once.
#[test]
fn a_death_at_any_step_leaves_nothing_wrong() {
    for story in STORIES {
        for (docker, cut) in ways() {
            let mut at = 0;
            while Play::run(story, docker, &[(cut, at)]) > 0 {
                at += 1;
            }
            assert!(at > 2 * story.1.len(), "{}: {at} steps", story.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// The plugin that goes on dies as well.
    #[test]
    fn deaths_one_after_the_other_leave_nothing_wrong(
        story in 0..STORIES.len(),
        is_forgotten: bool,
        cuts in prop::collection::vec((prop::sample::select(&Cut::ALL[..]), 0usize..24), 2..6),
    ) {
        let docker = if is_forgotten { Docker::Forgets } else { Docker::AsksAgain };
        Play::run(STORIES[story], docker, &cuts);
    }
}
