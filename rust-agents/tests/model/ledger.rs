//! The ledger books every turn from what went in and what came out, and checks it.

use std::collections::{BTreeMap, BTreeSet};

use _rust::{
    AgentRuntime, Assigned, Failure, Input, Lane, Limits, Offer, Place, Reason, Seen, Turn,
};

use super::calls::Calls;
use super::owned::Owned;

/// What a retry costs, and what a success brings back, in thousandths of a retry.
const RETRY: u64 = 1_000;
const DEPOSIT: u64 = RETRY / 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Queued,
    Executing,
    FencedExecuting,
    /// Failed: when it is tried again, and when it expires.
    Backoff(Option<i64>, Option<i64>),
    Unacknowledged,
    Acknowledged,
    Settled(Reason),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    place: Place,
    lane: Option<Lane>,
    deadline: Option<i64>,
    nbytes: u32,
    /// Its turn to enter its lane; `None` while it is at the gate.
    entered: Option<u64>,
    failed: u32,
    end: Option<i64>,
    cancelled: bool,
    fate: Fate,
}

pub(crate) struct Ledger {
    limits: Limits,
    machine: AgentRuntime,
    pub(crate) now: i64,
    pub(crate) suspended: bool,
    pub(crate) owned: BTreeMap<u32, Owned>,
    pub(crate) calls: Calls,
    /// By token, those that did not end.
    entries: BTreeMap<u64, Entry>,
    entered: u64,
    /// In thousandths of a retry, and until when it was filled over time.
    budget: u64,
    filled: Option<i64>,
    duplicates: u64,
    flooded: bool,
    /// What happened at all, by name.
    pub(crate) reached: BTreeSet<&'static str>,
}

/// What can be committed of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Committed {
    pub(crate) offset: u64,
    /// The done set.
    pub(crate) done: Box<[u8]>,
    /// What it says.
    pub(crate) says: BTreeSet<u64>,
}

/// What a turn settled, and nobody accounted for yet.
type Settled = BTreeMap<u64, Reason>;

impl Ledger {
    pub(crate) fn new(limits: Limits, now: i64) -> Self {
        Self {
            limits,
            machine: AgentRuntime::new(limits).expect("limits are sane"),
            now,
            suspended: false,
            owned: BTreeMap::new(),
            calls: Calls::new(&limits),
            entries: BTreeMap::new(),
            entered: 0,
            budget: limits.retry_budget * RETRY,
            filled: None,
            duplicates: 0,
            flooded: false,
            reached: BTreeSet::new(),
        }
    }

    pub(crate) fn tokens(&self, fates: &[Fate]) -> Vec<u64> {
        let chosen = self.entries.iter().filter(|(_, it)| fates.contains(&it.fate));
        chosen.map(|(token, _)| *token).collect()
    }

    pub(crate) fn unfinished(&self) -> bool {
        !self.entries.is_empty()
    }

    pub(crate) fn commits(&self) -> Vec<(u32, Committed)> {
        let commit = |(&partition, owned): (&u32, &Owned)| {
            let commit = self.machine.commit_of(partition).expect("it is ours");
            assert_eq!((commit.offset, commit.reach), (owned.base, owned.reach.max(owned.base)));
            let says = owned.done_above_base();
            assert_eq!(commit.done.is_empty(), says.is_empty());
            let done = commit.done.into_boxed_slice();
            (partition, Committed { offset: commit.offset, done, says })
        };
        self.owned.iter().map(commit).collect()
    }

    /// Lets the machine take a turn, books it in the order it promises, and checks it.
    ///
    /// `restored` is what the done sets of an assignment say.
    pub(crate) fn turn(&mut self, input: &Input, restored: BTreeMap<u32, BTreeSet<u64>>) -> Turn {
        let turn = self.machine.turn(self.now, input.clone()).expect("no misuse");
        let mut settled = Settled::new();
        for &(token, reason) in &turn.settled {
            assert!(settled.insert(token, reason).is_none(), "{token} settled twice");
        }
        for spent in &input.spent {
            self.calls.spend(spent.ask, spent.price);
        }
        self.book_executed(&input.executed, &mut settled);
        let failures = self.book_failed(&input.failed, &mut settled);
        self.book_acknowledged(&input.acknowledged);
        if let Some(assigned) = &input.assigned {
            self.book_assignment(assigned, restored, &mut settled);
        }
        self.suspended |= input.revoked;
        self.book_failures(failures, &turn, &mut settled);
        for &seen in &input.seen {
            self.book_seen(seen);
        }
        for &offer in &input.offered {
            self.book_arrival(offer, &mut settled);
        }
        for asked in &input.asked {
            let run = self.entries.get(&asked.token);
            self.calls
                .ask(asked, run.is_some_and(|it| it.fate == Fate::Executing && !it.cancelled));
        }
        self.book_cancels(&turn);
        self.book_expired(&settled);
        self.book_backoffs_over();
        for &token in &turn.start {
            let entry = &self.entries[&token];
            assert!(entry.deadline.is_none_or(|it| it > self.now), "{token} starts late");
            self.activate(token, Fate::Executing);
        }
        self.calls.grant(self.now);
        self.reached.extend(self.calls.check(&turn));
        self.check_slots();
        self.check_commits(&turn);
        self.check_pauses(&turn);
        self.check_wake(&turn);
        self.check_stats();
        self.entries.retain(|_, it| !it.is_ended());
        turn
    }

    // What is reported ----------------------------------------------------------------------------

    fn book_executed(&mut self, executed: &[u64], settled: &mut Settled) {
        for token in executed {
            let Some(entry) = self.entries.get_mut(token) else {
                continue;
            };
            match entry.fate {
                Fate::Executing => {
                    if !entry.cancelled {
                        self.budget = (self.budget + DEPOSIT).min(self.limits.retry_budget * RETRY);
                    }
                    entry.fate = Fate::Unacknowledged;
                    self.calls.end(*token);
                }
                Fate::FencedExecuting => {
                    entry.fate = settle(settled, *token, Reason::Fenced);
                    self.calls.end(*token);
                }
                _ => {}
            }
        }
    }

    /// Ends the attempts that failed; what becomes of them is booked after the assignment, which may
    /// fence them in the same turn.
    fn book_failed(&mut self, failed: &[Failure], settled: &mut Settled) -> Vec<Failure> {
        let mut failures = Vec::new();
        for failure in failed {
            let token = failure.token;
            let Some(entry) = self.entries.get_mut(&token) else {
                continue;
            };
            match entry.fate {
                Fate::Executing => {
                    entry.failed += 1;
                    (entry.end, entry.cancelled) = (None, false);
                    let late = entry.deadline.is_some_and(|it| it <= self.now);
                    let exhausted = u64::from(entry.failed) > self.limits.retries && !late;
                    entry.fate =
                        if exhausted { Fate::Unacknowledged } else { Fate::Backoff(None, None) };
                    self.calls.end(token);
                    failures.push(*failure);
                }
                Fate::FencedExecuting => {
                    entry.fate = settle(settled, token, Reason::Fenced);
                    self.calls.end(token);
                }
                _ => {}
            }
        }
        failures
    }

    fn book_failures(&mut self, failures: Vec<Failure>, turn: &Turn, settled: &mut Settled) {
        let mut told: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
        for &(token, attempt, delay) in &turn.retries {
            assert!(told.insert(token, (attempt, delay)).is_none(), "{token} retried twice");
        }
        for Failure { token, retry_after } in failures {
            let entry = self.entries.get_mut(&token).expect("it was there");
            match entry.fate {
                Fate::Unacknowledged | Fate::Acknowledged => {
                    settle(settled, token, Reason::Exhausted);
                    self.reached.insert("exhausted");
                }
                Fate::Backoff(..) => {
                    let doubled = self.limits.backoff_ms << (entry.failed - 1);
                    let least = retry_after.unwrap_or(0);
                    let most = doubled.min(self.limits.max_backoff_ms).max(least);
                    let at = |delay| self.now + i64::try_from(delay).expect("small");
                    entry.fate = if let Some((attempt, delay)) = told.remove(&token) {
                        assert_eq!(attempt, entry.failed, "{token}");
                        assert!((least..=most).contains(&delay), "{token} waits {delay}");
                        assert!(entry.deadline.is_none_or(|it| at(delay) < it), "{token} is late");
                        Fate::Backoff(Some(at(delay)), entry.deadline)
                    } else {
                        assert!(
                            entry.deadline.is_some_and(|it| it <= at(most)),
                            "{token} has time"
                        );
                        Fate::Backoff(None, Some(self.now))
                    };
                }
                Fate::Settled(reason) => assert_eq!(reason, Reason::Fenced),
                other => panic!("{token} failed, and is {other:?}"),
            }
        }
        assert_eq!(told, BTreeMap::new(), "retries of what did not fail");
    }

    fn book_acknowledged(&mut self, acknowledged: &[u64]) {
        for token in acknowledged {
            let Some(entry) = self.entries.get_mut(token) else {
                continue;
            };
            if entry.fate != Fate::Unacknowledged {
                continue;
            }
            entry.fate = Fate::Acknowledged;
            let Place { partition, offset, .. } = entry.place;
            let owned = self.owned.get_mut(&partition).expect("it is not fenced");
            owned.finish(offset, *token);
            self.open_gate(partition);
        }
    }

    fn book_assignment(
        &mut self,
        assigned: &[Assigned],
        mut restored: BTreeMap<u32, BTreeSet<u64>>,
        settled: &mut Settled,
    ) {
        self.suspended = false;
        let mut before = std::mem::take(&mut self.owned);
        for it in assigned {
            let known = if it.adopt { before.remove(&it.partition) } else { None };
            let done = restored.remove(&it.partition).unwrap_or_default();
            let fresh = || Owned::new(it, done);
            let owned = known.map_or_else(fresh, |known| known.adopt(it));
            self.owned.insert(it.partition, owned);
        }
        for (token, entry) in &mut self.entries {
            if entry.is_ended() || !before.contains_key(&entry.place.partition) {
                continue;
            }
            match entry.fate {
                Fate::Executing => {
                    entry.fate = Fate::FencedExecuting;
                    self.calls.refuse(*token);
                }
                Fate::FencedExecuting => {}
                _ => entry.fate = settle(settled, *token, Reason::Fenced),
            }
        }
    }

    // What arrives --------------------------------------------------------------------------------

    fn book_seen(&mut self, seen: Seen) {
        let Seen { partition, offset, identity, timestamp } = seen;
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.note(offset, identity, timestamp, &self.limits);
        }
    }

    fn book_arrival(&mut self, offer: Offer, settled: &mut Settled) {
        let token = offer.token;
        let mut entry = Entry {
            place: offer.place,
            lane: offer.lane,
            deadline: offer.deadline,
            nbytes: offer.nbytes,
            entered: None,
            failed: 0,
            end: None,
            cancelled: false,
            fate: Fate::Queued,
        };
        let refusal = self.refusal(&offer);
        if let Some(reason) = refusal {
            entry.fate = settle(settled, token, reason);
        }
        assert!(self.entries.insert(token, entry).is_none());
        if refusal.is_some() {
            return;
        }
        self.calls.give(token, offer.budget);
        let Place { partition, offset, .. } = offer.place;
        if self.owned.get_mut(&partition).is_some_and(|it| it.stops(offset, token)) {
            self.reached.insert("careful");
            self.open_gate(partition);
        } else {
            self.enter_lane(token);
        }
    }

    /// Why an offer is not taken in; its offset is in the books then.
    fn refusal(&mut self, offer: &Offer) -> Option<Reason> {
        let Place { partition, epoch, offset } = offer.place;
        let owned =
            self.owned.get_mut(&partition).filter(|it| !self.suspended && it.epoch == epoch);
        let Some(owned) = owned else {
            return Some(Reason::Stale);
        };
        let Some(offset) = offset else {
            self.reached.insert("without offset");
            return None;
        };
        if offset < owned.position {
            return Some(Reason::Stale);
        }
        let (known, time) = (owned.knows(offset), offer.timestamp);
        let event = offer.identity;
        let repeats = event.is_some_and(|it| owned.repeats(offset, it, time, &self.limits));
        if let Some(identity) = event {
            owned.note(offset, identity, time, &self.limits);
        }
        if known {
            if owned.restored.contains(&offset) {
                self.reached.insert("restored");
                owned.received.insert(offset, true);
            }
            return Some(Reason::Redelivered);
        }
        owned.received.insert(offset, repeats);
        if repeats {
            owned.untold = true;
            self.duplicates += 1;
            self.reached.insert("duplicate");
        }
        repeats.then_some(Reason::Duplicate)
    }

    fn open_gate(&mut self, partition: u32) {
        while let Some(token) = self.owned.get_mut(&partition).and_then(Owned::pass) {
            self.enter_lane(token);
        }
    }

    fn enter_lane(&mut self, token: u64) {
        self.entered += 1;
        self.entries.get_mut(&token).expect("it arrived").entered = Some(self.entered);
    }

    // What time brings ----------------------------------------------------------------------------

    fn book_cancels(&mut self, turn: &Turn) {
        for token in &turn.cancel {
            let entry = self.entries.get_mut(token).expect("it was offered");
            assert!(!std::mem::replace(&mut entry.cancelled, true), "{token} cancelled twice");
            let late = entry.end.is_some_and(|it| it <= self.now);
            assert!(late || entry.fate == Fate::FencedExecuting, "{token} has time left");
            self.calls.refuse(*token);
        }
        for (token, entry) in &self.entries {
            let late = entry.end.is_some_and(|it| it <= self.now);
            let lost = entry.fate == Fate::FencedExecuting;
            assert!(
                entry.cancelled || !(lost || late && entry.fate == Fate::Executing),
                "{token} was to be cancelled"
            );
        }
    }

    /// Books what is left of the settled ones: all other causes are accounted for.
    fn book_expired(&mut self, settled: &Settled) {
        for (&token, &reason) in settled {
            assert_eq!(reason, Reason::Expired, "{token} was settled without a cause");
            let entry = self.entries.get_mut(&token).expect("it was offered");
            if let Fate::Backoff(_, expires) = entry.fate {
                assert!(expires.is_some_and(|it| it <= self.now), "{token} is not late");
                assert!(!self.suspended, "{token} was not left alone while suspended");
                entry.fate = Fate::Unacknowledged;
                self.reached.insert("expired while it waited for a retry");
            } else {
                assert!(entry.deadline.is_some_and(|it| it <= self.now), "{token} is not late");
                self.activate(token, Fate::Unacknowledged);
            }
        }
    }

    /// Failed runs are queued again, first due first, as far as the budget goes.
    fn book_backoffs_over(&mut self) {
        if self.suspended {
            return;
        }
        let most = self.limits.retry_budget * RETRY;
        let passed = self.filled.map_or(most, |it| u64::try_from(self.now - it).expect("forward"));
        self.budget = (self.budget + passed).min(most);
        self.filled = Some(self.now);
        let dues = self.entries.iter().filter_map(|(token, it)| Some((it.due()?, *token)));
        let dues: BTreeSet<(i64, u64)> = dues.filter(|(due, _)| *due <= self.now).collect();
        for (_, token) in dues {
            if self.budget < RETRY {
                self.reached.insert("retry waits for budget");
                return;
            }
            self.budget -= RETRY;
            self.entries.get_mut(&token).expect("it failed").fate = Fate::Queued;
        }
    }

    /// A queued record gets its turn in its lane: it starts or expires.
    fn activate(&mut self, token: u64, fate: Fate) {
        assert!(!self.suspended, "{token} was not left alone while suspended");
        let entry = &self.entries[&token];
        assert_eq!(entry.fate, Fate::Queued, "{token}");
        assert!(entry.entered.is_some(), "{token} slipped through the gate");
        for (other, mate) in self.in_lane_of(token) {
            assert!(!mate.is_active(), "{token} and {other} are active in one lane");
            assert!(!mate.is_ahead_of(entry), "{token} overtook {other}");
        }
        let Place { partition, offset, .. } = entry.place;
        let owned = self.owned.get_mut(&partition).expect("it is ours");
        if let (Fate::Executing, Some(offset)) = (fate, offset) {
            owned.reach = owned.reach.max(offset + 1);
        }
        let careful_until = owned.careful_until;
        if offset.is_some_and(|it| it < careful_until) {
            let mut others = self.entries.iter().filter(|(other, _)| **other != token);
            let active = others.find(|(_, it)| it.place.partition == partition && it.is_active());
            let after = active.filter(|(_, it)| it.fate != Fate::FencedExecuting);
            // Without an offset it may have begun when everything below was done.
            let after =
                after.filter(|(_, it)| it.place.offset.is_some_and(|it| it < careful_until));
            assert!(after.is_none(), "{token} is not alone: {active:?}");
        }
        let timeout = self.limits.timeout_ms.map(|it| self.now + i64::try_from(it).expect("15"));
        let entry = self.entries.get_mut(&token).expect("it was just there");
        entry.end = entry.deadline.into_iter().chain(timeout).min();
        entry.fate = fate;
    }

    fn in_lane_of(&self, token: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let lane = self.entries[&token].lane;
        let mates = self.entries.iter().filter(move |(_, it)| lane.is_some() && it.lane == lane);
        mates.map(|(other, it)| (*other, it)).filter(move |(other, _)| *other != token)
    }

    /// Queued records past their gate, with nobody before them in their lane.
    fn heads(&self) -> Vec<u64> {
        let mut heads = self.tokens(&[Fate::Queued]);
        heads.retain(|token| {
            let entry = &self.entries[token];
            let ahead = |mate: &Entry| mate.is_active() || mate.is_ahead_of(entry);
            entry.entered.is_some() && !self.in_lane_of(*token).any(|(_, mate)| ahead(mate))
        });
        heads
    }

    // What must hold ------------------------------------------------------------------------------

    fn check_slots(&self) {
        let running = self.tokens(&[Fate::Executing, Fate::FencedExecuting]).len() as u64;
        assert!(running <= self.limits.slots);
        assert_eq!(running, self.machine.running());
        if running < self.limits.slots && !self.suspended {
            assert!(self.heads().is_empty(), "a slot is idle");
        }
    }

    fn check_commits(&mut self, turn: &Turn) {
        let mut expected = Vec::new();
        for (&partition, owned) in &mut self.owned {
            owned.advance();
            if owned.base > owned.told || std::mem::take(&mut owned.untold) {
                owned.untold = false;
                owned.told = owned.base;
                expected.push((partition, owned.base));
            }
        }
        assert_eq!(turn.commits, expected);
    }

    fn check_pauses(&mut self, turn: &Turn) {
        let Limits { max_queued_records: records, max_queued_bytes: bytes, .. } = self.limits;
        let all = self.queued_of(None).1;
        self.flooded = all > bytes * if self.flooded { 2 } else { 4 };
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        let numbers: Vec<u32> = self.owned.keys().copied().collect();
        for partition in numbers.into_iter().filter(|_| !self.suspended) {
            let (count, weight) = self.queued_of(Some(partition));
            let much = count > records || weight > bytes || self.flooded && count > 0;
            let little = count <= records / 2 && weight <= bytes / 2 && !self.flooded;
            let owned = self.owned.get_mut(&partition).expect("it is ours");
            if owned.paused && little {
                resume.push(partition);
            } else if !owned.paused && much {
                pause.push(partition);
            } else {
                continue;
            }
            owned.paused = !owned.paused;
        }
        assert_eq!((&turn.pause, &turn.resume), (&pause, &resume));
    }

    /// How many records are queued, of one partition or of all, and what they weigh.
    fn queued_of(&self, partition: Option<u32>) -> (u64, u64) {
        let queued = self.entries.values().filter(|it| it.fate == Fate::Queued);
        let queued = queued.filter(|it| partition.is_none_or(|one| one == it.place.partition));
        queued.fold((0, 0), |(count, bytes), it| (count + 1, bytes + u64::from(it.nbytes)))
    }

    fn check_wake(&self, turn: &Turn) {
        let running =
            self.entries.values().filter(|it| it.fate == Fate::Executing && !it.cancelled);
        let ends = running.filter_map(|it| it.end).chain(self.calls.next_grant(self.now));
        let deadlines = self.heads().into_iter().filter_map(|it| self.entries[&it].deadline);
        let expiries = self.entries.values().filter_map(|it| match it.fate {
            Fate::Backoff(_, expires) => expires,
            _ => None,
        });
        let missing = i64::try_from(RETRY.saturating_sub(self.budget)).expect("small");
        let dues = self.entries.values().filter_map(Entry::due);
        let retry = dues.min().map(|it| it.max(self.now + missing));
        let waits = deadlines.chain(expiries).chain(retry).filter(|_| !self.suspended);
        assert_eq!(turn.wake_at, ends.chain(waits).min());
        assert!(turn.wake_at.is_none_or(|it| it > self.now));
    }

    fn check_stats(&self) {
        let count = |fate| self.tokens(&[fate]).len() as u64;
        let stats = self.machine.stats();
        let unacknowledged = count(Fate::Unacknowledged);
        assert_eq!(stats.unacknowledged, unacknowledged);
        assert_eq!(stats.running + unacknowledged, self.machine.in_flight());
        assert_eq!((stats.queued_records, stats.queued_bytes), self.queued_of(None));
        let retrying = self.entries.values().filter(|it| matches!(it.fate, Fate::Backoff(..)));
        assert_eq!(stats.retrying, retrying.count() as u64);
        assert_eq!(stats.retry_budget, self.budget / RETRY);
        assert_eq!(stats.waiting_asks, self.calls.waiting() as u64);
        assert_eq!(stats.duplicates, self.duplicates);
        assert_eq!(stats.partitions, self.owned.len() as u64);
        let done = self.owned.values().map(|it| it.done_above_base().len() as u64);
        assert_eq!(stats.done_above_base, done.sum::<u64>());
    }

    pub(crate) fn check_nothing_is_left(&self) {
        assert!(self.entries.is_empty(), "never ended: {:?}", self.entries);
        assert!(self.calls.is_empty());
        let stats = self.machine.stats();
        assert_eq!((stats.running, stats.unacknowledged, stats.retrying), (0, 0, 0));
        assert_eq!((stats.queued_records, stats.queued_bytes, stats.partitions), (0, 0, 0));
    }
}

impl Entry {
    /// It keeps its lane.
    fn is_active(&self) -> bool {
        matches!(
            self.fate,
            Fate::Executing | Fate::FencedExecuting | Fate::Backoff(..) | Fate::Unacknowledged
        )
    }

    /// Queued before another one of its lane; a run that is tried again still is where it was.
    fn is_ahead_of(&self, other: &Self) -> bool {
        let earlier = self.entered.is_some_and(|it| Some(it) < other.entered);
        self.fate == Fate::Queued && earlier
    }

    fn is_ended(&self) -> bool {
        matches!(self.fate, Fate::Acknowledged | Fate::Settled(_))
    }

    /// When it is tried again.
    fn due(&self) -> Option<i64> {
        match self.fate {
            Fate::Backoff(due, _) => due,
            _ => None,
        }
    }
}

/// Takes a token out of those a turn settled, for this reason.
fn settle(settled: &mut Settled, token: u64, reason: Reason) -> Fate {
    assert_eq!(settled.remove(&token), Some(reason), "{token}");
    Fate::Settled(reason)
}
