//! Leases in the fake: grants, recalls, looks, takes.

use super::*;

impl State {
    pub(super) fn take_yield(&mut self, session: SessionId, claim: &Claim) {
        let key = (claim.ino, session);
        match self.holds.get_mut(&key) {
            Some((hold, grant)) if *grant <= claim.grant => *hold = claim.hold,
            _ => {}
        }
        self.holds.retain(|_, (hold, _)| *hold != Hold::default());
        if claim.hold.lease < Lease::Write {
            self.looked.remove(&key);
        }
        if self.recalls.get(&key).is_some_and(|(keep, _)| claim.hold.lease <= *keep) {
            self.recalls.remove(&key);
        }
        self.reap(claim.ino);
    }

    /// Recalls what others hold beyond `keep`. `false`: somebody has to give something up first.
    pub(super) fn clear(&mut self, session: SessionId, ino: Ino, keep: Lease, takes: bool) -> bool {
        self.bring_home(session, ino);
        let beyond: Vec<(SessionId, Lease, u64)> = self
            .holds
            .iter()
            .filter(|((held, holder), (hold, _))| *held == ino && *holder != session && hold.lease > keep)
            .map(|((_, holder), (hold, grant))| (*holder, hold.lease, *grant))
            .collect();
        for (holder, had, grant) in &beyond {
            let known = self.recalls.get(&(ino, *holder));
            if known.is_none_or(|(lease, _)| *lease > keep) {
                self.tally("recall");
                self.recalls.insert((ino, *holder), (keep, *grant));
                if keep == Lease::None {
                    let but = (takes || *had < Lease::Write).then_some(session);
                    self.quiet.insert(ino, (Instant::now() + Duration::from_millis(LEASE_QUIET_MS), but));
                }
                let recall = event(&Event::Recall { ino, keep, grant: *grant });
                let events = self.sessions.get(holder).and_then(|session| session.events.as_ref());
                events.map(|events| events.try_send(recall));
            }
        }
        beyond.is_empty()
    }

    /// Has who has a Write lease on it ship what it did. `false`: it has not yet.
    pub(super) fn look(&mut self, session: SessionId, ino: Ino) -> bool {
        self.bring_home(session, ino);
        let writers = self
            .holds
            .iter()
            .filter(|((held, holder), (hold, _))| *held == ino && *holder != session && hold.lease == Lease::Write);
        let writer = writers.map(|((_, holder), (_, grant))| (*holder, *grant)).next();
        let Some((holder, grant)) = writer else {
            self.looks.remove(&(ino, session));
            return true;
        };
        let key = (ino, holder);
        let look = match self.looks.get(&(ino, session)) {
            Some(look) => *look,
            None => {
                self.last_look += 1;
                let look = self.last_look;
                self.looks.insert((ino, session), look);
                self.looked.entry(key).or_default().0 = look;
                self.tally("look");
                let told = event(&Event::Look { ino, grant, look });
                let events = self.sessions.get(&holder).and_then(|session| session.events.as_ref());
                events.map(|events| events.try_send(told));
                look
            }
        };
        let shown = self.looked.get(&key).is_some_and(|(_, shown)| *shown >= look);
        if shown {
            self.looks.remove(&(ino, session));
        }
        shown
    }

    /// Write leases from whoever has leases on these. `None`: they have not given them back yet.
    pub(super) fn take(&mut self, session: SessionId, inos: &[Ino]) -> Option<MetaReply> {
        let inos: Vec<Ino> = inos.iter().copied().filter(|ino| !self.is_quiet(session, *ino)).collect();
        let mut clear = true;
        inos.iter().for_each(|ino| clear &= self.clear(session, *ino, Lease::None, true));
        if !clear {
            return None;
        }
        self.tally("take");
        let (mut attrs, mut granted) = (Vec::new(), Vec::new());
        for ino in inos {
            let claims = self.grant(session, ino, Hold { lease: Lease::Write, open: false });
            if claims.iter().any(|claim| claim.hold.lease == Lease::Write) {
                attrs.extend(self.attr(ino));
            }
            granted.extend(claims);
        }
        Some(MetaReply { body: MetaBody::Attrs(attrs), granted })
    }

    /// All of them at once.
    pub(super) fn holdings(&mut self, session: SessionId, after: Ino) -> MetaBody {
        self.tally("holdings");
        let held = self.holds.iter().filter(|((ino, holder), _)| *holder == session && *ino > after);
        let claims = held.map(|((ino, _), (hold, grant))| Claim { ino: *ino, hold: *hold, grant: *grant }).collect();
        MetaBody::Holdings { term: self.term, claims, end: true }
    }

    pub(super) fn is_quiet(&self, session: SessionId, ino: Ino) -> bool {
        self.quiet.get(&ino).is_some_and(|(until, but)| Instant::now() < *until && *but != Some(session))
    }

    pub(super) fn put_hold(&mut self, ino: Ino, session: SessionId, hold: Hold) -> Claim {
        self.last_grant += 1;
        let had = self.holds.insert((ino, session), (hold, self.last_grant));
        if hold.lease == Lease::Write && had.is_none_or(|(had, _)| had.lease < Lease::Write) {
            // Whoever looked before waits for nobody.
            self.looked.insert((ino, session), (0, self.last_look));
        }
        Claim { ino, hold, grant: self.last_grant }
    }

    pub(super) fn grant(&mut self, session: SessionId, ino: Ino, want: Hold) -> Vec<Claim> {
        if want == Hold::default() || !self.inodes.contains_key(&ino) {
            return Vec::new();
        }
        let others = self.holds.iter().filter(|((held, holder), _)| *held == ino && *holder != session);
        let most = others.map(|(_, (hold, _))| hold.lease).max().unwrap_or_default();
        let quiet = self.is_quiet(session, ino);
        let recalled = self.recalls.keys().any(|(recalled, _)| *recalled == ino);
        let lease = match want.lease {
            _ if self.faults.grants_nothing || quiet || recalled || most == Lease::Write => Lease::None,
            Lease::Write if most == Lease::None => Lease::Write,
            Lease::None => Lease::None,
            _ => Lease::Read,
        };
        let mine = self.holds.get(&(ino, session)).map(|(hold, _)| *hold).unwrap_or_default();
        let hold = Hold { lease: lease.max(mine.lease), open: mine.open || want.open };
        vec![self.put_hold(ino, session, hold)]
    }

    /// No other session may have changed it.
    pub(super) fn is_free_for(&self, session: SessionId, ino: Ino) -> bool {
        let others = self.holds.iter().filter(|((held, holder), _)| *held == ino && *holder != session);
        others.map(|(_, (hold, _))| hold.lease).all(|lease| lease < Lease::Write)
    }

    /// An inode that was made by who has its number is asked for before it is shipped, once.
    fn bring_home(&mut self, session: SessionId, ino: Ino) {
        let unknown = !self.inodes.contains_key(&ino) && ino.0 <= self.last_ino;
        let maker = self.numbers.range(ino.0..).next().map(|(_, maker)| *maker);
        if let Some(maker) = maker.filter(|maker| unknown && *maker != session && !self.is_gone(maker))
            && self.brought_home.insert(ino)
        {
            self.put_hold(ino, maker, Hold { lease: Lease::Write, open: true });
        }
    }
}
