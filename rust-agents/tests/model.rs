//! Random histories exist to look for what nobody thought of: after every turn, a ledger that knows
//! nothing but what went in and came out checks the invariants the machine promises.
//!
//! The ledger never predicts the order of starts; that, and whole turns, are compared with a twin in
//! `agents/tests/test_machine.py`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test speaks by panicking, and its name is its documentation"
)]

use std::collections::{BTreeMap, BTreeSet};

use _rust::{AgentRuntime, Assigned, Hold, Input, Lane, Limits, Offer, Place, Reason, Turn};

const PARTITIONS: u32 = 3;
const LANES: [&[u8]; 3] = [b"a", b"b", b"c"];

#[test]
fn random_histories_keep_the_invariants() {
    for seed in 1..=200 {
        let mut history = History::new(seed);
        for _ in 0..150 {
            history.step();
        }
        if seed % 2 == 0 {
            history.finish_everything();
        }
        history.lose_everything();
    }
}

#[test]
fn the_same_history_makes_the_same_turns() {
    let turns = |seed| {
        let mut history = History::new(seed);
        (0..150).map(|_| history.step()).collect::<Vec<Turn>>()
    };
    assert_eq!(turns(77), turns(77));
    assert_ne!(turns(77), turns(78));
}

/// Marsaglia's xorshift64: enough to be arbitrary, and the same everywhere.
struct Dice(u64);

impl Dice {
    /// From 0 to below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn some_of(&mut self, tokens: impl IntoIterator<Item = u64>) -> Vec<u64> {
        tokens.into_iter().filter(|_| self.one_in(2)).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Queued,
    Executing,
    FencedExecuting,
    Unacknowledged,
    Held,
    Acknowledged,
    Settled(Reason),
}

#[derive(Clone, Debug)]
struct Entry {
    place: Place,
    lane: Option<Lane>,
    deadline: Option<i64>,
    covers: Box<[u64]>,
    covered_by: Option<u64>,
    end: Option<i64>,
    cancelled: bool,
    fate: Fate,
}

#[derive(Debug)]
struct Owned {
    epoch: u64,
    position: u64,
    told: u64,
    base: u64,
    /// More is done above the base than was told.
    untold: bool,
    paused: bool,
    /// Every offset that was ever received, and whether it is done.
    received: BTreeMap<u64, bool>,
    /// Offsets that were received, but not taken in.
    refused: BTreeSet<u64>,
}

struct History {
    dice: Dice,
    limits: Limits,
    machine: AgentRuntime,
    now: i64,
    epoch: u64,
    suspended: bool,
    owned: BTreeMap<u32, Owned>,
    read: BTreeMap<u32, u64>,
    /// By token, which is also the order of offers.
    ledger: BTreeMap<u64, Entry>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let limits = Limits {
            slots: 1 + dice.roll(4),
            max_queued_records: 1 + dice.roll(5),
            max_queued_bytes: 1 + dice.roll(60),
            timeout_ms: dice.one_in(2).then_some(15),
            ..Limits::default()
        };
        Self {
            limits,
            machine: AgentRuntime::new(limits).expect("limits are sane"),
            dice,
            now: -20,
            epoch: 0,
            suspended: false,
            owned: BTreeMap::new(),
            read: BTreeMap::new(),
            ledger: BTreeMap::new(),
        }
    }

    /// Something happens.
    fn step(&mut self) -> Turn {
        self.now += [0, 0, 1, 2, 9][usize::try_from(self.dice.roll(5)).expect("small")];
        let mut input = Input::default();
        let executing = self.tokens(&[Fate::Executing, Fate::FencedExecuting]);
        input.executed = self.dice.some_of(executing);
        let ended = self.tokens(&[Fate::Unacknowledged]);
        input.acknowledged = self.dice.some_of(ended.into_iter().chain(input.executed.clone()));
        if self.dice.one_in(8) {
            // Late, early and unknown reports.
            let any = self.dice.roll(self.ledger.len() as u64 + 3);
            input.executed.push(any);
            input.acknowledged.push(any);
        }
        input.revoked = self.dice.one_in(20);
        if self.epoch == 0 || self.dice.one_in(if self.suspended { 3 } else { 40 }) {
            input.assigned = Some(self.assignment());
        }
        let mut token = self.ledger.len() as u64;
        let mut held: Vec<u64> = self.tokens(&[Fate::Held]);
        for _ in 0..self.dice.roll(2) {
            input.held.push(Hold { token, place: self.place() });
            held.push(token);
            token += 1;
        }
        for _ in 0..self.dice.roll(4) {
            let covers =
                if self.dice.one_in(3) { self.dice.some_of(held.iter().copied()) } else { vec![] };
            input.offered.push(Offer {
                token,
                place: self.place(),
                lane: LANES
                    .get(usize::try_from(self.dice.roll(4)).expect("small"))
                    .map(|key| Lane::of(key)),
                deadline: self
                    .dice
                    .one_in(2)
                    .then(|| self.now - 2)
                    .map(|past| past + i64::try_from(self.dice.roll(20)).expect("small")),
                nbytes: u32::try_from(self.dice.roll(30)).expect("small"),
                covers: covers.into_boxed_slice(),
                ..Offer::default()
            });
            token += 1;
        }
        self.turn(&input)
    }

    /// All work comes to its end, and everything that was received, and not refused or held, is
    /// committed.
    fn finish_everything(&mut self) {
        self.epoch += 1;
        let numbers: Vec<u32> = self.owned.keys().copied().collect();
        let assigned = numbers.into_iter().map(|it| Assigned { adopt: true, ..self.assigned(it) });
        let assigned = Some(assigned.collect());
        self.turn(&Input { assigned, ..Input::default() });
        while self.machine.in_flight() + self.machine.queued() > 0 {
            let executed = self.tokens(&[Fate::Executing, Fate::FencedExecuting]);
            let ended = self.tokens(&[Fate::Unacknowledged, Fate::Executing]);
            assert!(!executed.is_empty() || !ended.is_empty(), "queued work is stuck");
            self.turn(&Input { executed, acknowledged: ended, ..Input::default() });
        }
        for owned in self.owned.values().filter(|it| it.refused.is_empty()) {
            if owned.received.values().all(|done| *done) {
                assert_eq!(owned.base, owned.next());
            }
        }
    }

    /// Every token has exactly one end, and nothing is left behind.
    fn lose_everything(&mut self) {
        self.turn(&Input { assigned: Some(vec![]), ..Input::default() });
        let executed = self.tokens(&[Fate::Executing, Fate::FencedExecuting]);
        self.turn(&Input { executed, ..Input::default() });
        for (token, entry) in &self.ledger {
            assert!(entry.is_ended(), "{token} never ended: {entry:?}");
        }
        let stats = self.machine.stats();
        assert_eq!((stats.running, stats.unacknowledged, stats.held), (0, 0, 0));
        assert_eq!((stats.queued_records, stats.queued_bytes, stats.partitions), (0, 0, 0));
    }

    fn tokens(&self, fates: &[Fate]) -> Vec<u64> {
        let chosen = self.ledger.iter().filter(|(_, it)| fates.contains(&it.fate));
        chosen.map(|(token, _)| *token).collect()
    }

    /// The next record of some partition; sometimes out of order, after a gap, or from the past.
    fn place(&mut self) -> Place {
        let partition = u32::try_from(self.dice.roll(u64::from(PARTITIONS))).expect("small");
        let next = self.read.get(&partition).copied().unwrap_or_default();
        let offset = match self.dice.roll(12) {
            0 => next + 2,
            1 => next.saturating_sub(2),
            _ => next,
        };
        self.read.insert(partition, next.max(offset + 1));
        let epoch = if self.dice.one_in(25) { self.epoch.saturating_sub(1) } else { self.epoch };
        Place { partition, epoch, offset: Some(offset) }
    }

    fn assignment(&mut self) -> Vec<Assigned> {
        self.epoch += 1;
        let mut numbers: Vec<u32> = (0..PARTITIONS).collect();
        numbers.retain(|_| self.dice.one_in(2));
        numbers.into_iter().map(|it| self.assigned(it)).collect()
    }

    /// A partition that comes to us, at its commit or, when the last commit failed, below it.
    fn assigned(&mut self, partition: u32) -> Assigned {
        let committed = self.owned.get(&partition).map_or(0, |it| it.told);
        let position = if self.dice.one_in(4) { committed.saturating_sub(2) } else { committed };
        self.read.insert(partition, position);
        Assigned {
            partition,
            epoch: self.epoch,
            position,
            adopt: self.dice.one_in(2),
            ..Assigned::default()
        }
    }

    /// Lets the machine take a turn, books it, and checks it.
    fn turn(&mut self, input: &Input) -> Turn {
        let turn = self.machine.turn(self.now, input.clone()).expect("no misuse");
        let mut settled: BTreeMap<u64, Reason> = BTreeMap::new();
        for &(token, reason) in &turn.settled {
            assert!(settled.insert(token, reason).is_none(), "{token} settled twice");
        }
        self.book_reports(input, &mut settled);
        self.suspended |= input.revoked;
        if let Some(assigned) = &input.assigned {
            self.book_assignment(assigned, &mut settled);
        }
        for hold in &input.held {
            let entry = Entry { fate: Fate::Held, ..Entry::new(hold.place) };
            self.book_arrival(hold.token, entry, &mut settled);
        }
        for offer in &input.offered {
            let entry = Entry {
                lane: offer.lane,
                deadline: offer.deadline,
                covers: offer.covers.clone(),
                ..Entry::new(offer.place)
            };
            self.book_arrival(offer.token, entry, &mut settled);
        }
        for token in settled.keys() {
            assert_eq!(settled[token], Reason::Expired, "{token} was settled without a cause");
            let entry = &self.ledger[token];
            assert!(entry.deadline.is_some_and(|it| it <= self.now), "{token} is not late");
            self.activate(*token, Fate::Unacknowledged);
        }
        for &token in &turn.start {
            let entry = &self.ledger[&token];
            assert!(entry.deadline.is_none_or(|it| it > self.now), "{token} starts late");
            self.activate(token, Fate::Executing);
        }
        self.check_cancels(&turn);
        self.check_slots();
        self.check_commits(&turn);
        self.check_pauses(&turn);
        turn
    }

    fn book_reports(&mut self, input: &Input, settled: &mut BTreeMap<u64, Reason>) {
        for token in &input.executed {
            let Some(entry) = self.ledger.get_mut(token) else {
                continue;
            };
            match entry.fate {
                Fate::Executing => entry.fate = Fate::Unacknowledged,
                Fate::FencedExecuting => {
                    assert_eq!(settled.remove(token), Some(Reason::Fenced));
                    entry.fate = Fate::Settled(Reason::Fenced);
                }
                _ => {}
            }
        }
        for token in &input.acknowledged {
            let Some(entry) = self.ledger.get_mut(token) else {
                continue;
            };
            if entry.fate != Fate::Unacknowledged {
                continue;
            }
            entry.fate = Fate::Acknowledged;
            let mut places = vec![entry.place];
            for part in entry.covers.clone() {
                let part = self.ledger.get_mut(&part).expect("covered parts are known");
                if part.fate == Fate::Held && part.covered_by == Some(*token) {
                    part.fate = Fate::Acknowledged;
                    places.push(part.place);
                }
            }
            for place in places {
                let owned = self.owned.get_mut(&place.partition).expect("it is not fenced");
                let offset = place.offset.expect("all have one");
                assert_eq!(owned.received.insert(offset, true), Some(false));
                owned.untold = true;
            }
        }
    }

    fn book_assignment(&mut self, assigned: &[Assigned], settled: &mut BTreeMap<u64, Reason>) {
        self.suspended = false;
        let mut before = std::mem::take(&mut self.owned);
        for it in assigned {
            let known = if it.adopt { before.remove(&it.partition) } else { None };
            let known = known.unwrap_or_else(|| Owned::from_position(it.position));
            let Assigned { epoch, position, .. } = *it;
            let untold = known.received.iter().any(|(offset, done)| *done && *offset >= known.base);
            let owned = Owned { epoch, position, told: position, untold, paused: false, ..known };
            self.owned.insert(it.partition, owned);
        }
        for (token, entry) in &mut self.ledger {
            if entry.is_ended() || !before.contains_key(&entry.place.partition) {
                continue;
            }
            match entry.fate {
                Fate::Executing => entry.fate = Fate::FencedExecuting,
                Fate::FencedExecuting => {}
                _ => {
                    assert_eq!(settled.remove(token), Some(Reason::Fenced), "{token} is lost");
                    entry.fate = Fate::Settled(Reason::Fenced);
                }
            }
        }
        let fenced = self.ledger.clone();
        for part in self.ledger.values_mut().filter(|it| it.fate == Fate::Held) {
            part.covered_by = part.covered_by.filter(|by| {
                !matches!(fenced[by].fate, Fate::FencedExecuting | Fate::Settled(Reason::Fenced))
            });
        }
    }

    fn book_arrival(&mut self, token: u64, mut entry: Entry, settled: &mut BTreeMap<u64, Reason>) {
        let Place { partition, epoch, offset } = entry.place;
        let offset = offset.expect("all have one");
        let free = |part: &u64| {
            let part = self.ledger.get(part);
            part.is_some_and(|it| it.fate == Fate::Held && it.covered_by.is_none())
        };
        let joins = entry.covers.iter().all(free);
        let refusal = match self.owned.get_mut(&partition) {
            Some(owned) if !self.suspended && owned.epoch == epoch && owned.position <= offset => {
                if owned.received.contains_key(&offset) || offset < owned.base {
                    Some(Reason::Redelivered)
                } else if joins {
                    owned.received.insert(offset, false);
                    owned.refused.remove(&offset);
                    None
                } else {
                    owned.refused.insert(offset);
                    Some(Reason::Fenced)
                }
            }
            _ => Some(Reason::Stale),
        };
        if let Some(reason) = refusal {
            assert_eq!(settled.remove(&token), Some(reason), "{token} arrived as {entry:?}");
            entry.fate = Fate::Settled(reason);
        } else {
            for part in &entry.covers {
                let part = self.ledger.get_mut(part).expect("it is held");
                part.covered_by = Some(token);
            }
        }
        assert!(self.ledger.insert(token, entry).is_none());
    }

    /// A queued record gets its turn in its lane: it starts or expires.
    fn activate(&mut self, token: u64, fate: Fate) {
        assert!(!self.suspended, "{token} was not left alone while suspended");
        let entry = &self.ledger[&token];
        assert_eq!(entry.fate, Fate::Queued, "{token}");
        assert!(self.owned.contains_key(&entry.place.partition), "{token} is not ours");
        for (other, ahead) in self.in_lane_of(token) {
            assert!(!ahead.is_active(), "{token} and {other} are active in one lane");
            assert!(other > token || ahead.fate != Fate::Queued, "{token} overtook {other}");
        }
        let timeout = self.limits.timeout_ms.map(|it| self.now + i64::try_from(it).expect("15"));
        let entry = self.ledger.get_mut(&token).expect("it was just there");
        entry.end = entry.deadline.into_iter().chain(timeout).min();
        entry.fate = fate;
    }

    fn in_lane_of(&self, token: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let lane = self.ledger[&token].lane;
        let mates = self.ledger.iter().filter(move |(_, it)| lane.is_some() && it.lane == lane);
        mates.map(|(other, it)| (*other, it)).filter(move |(other, _)| *other != token)
    }

    fn check_cancels(&mut self, turn: &Turn) {
        for token in &turn.cancel {
            let entry = self.ledger.get_mut(token).expect("it was offered");
            assert!(!std::mem::replace(&mut entry.cancelled, true), "{token} cancelled twice");
            let late = entry.end.is_some_and(|it| it <= self.now);
            assert!(late || entry.fate == Fate::FencedExecuting, "{token} has time left");
        }
        for (token, entry) in &self.ledger {
            let late = entry.end.is_some_and(|it| it <= self.now);
            let lost = entry.fate == Fate::FencedExecuting;
            assert!(
                entry.cancelled || !(lost || late && entry.fate == Fate::Executing),
                "{token} was to be cancelled"
            );
        }
        let ends = self.ledger.values().filter(|it| it.fate == Fate::Executing && !it.cancelled);
        let heads = self.heads().into_iter().filter(|_| !self.suspended);
        let deadlines = heads.filter_map(|token| self.ledger[&token].deadline);
        assert_eq!(turn.wake_at, ends.filter_map(|it| it.end).chain(deadlines).min());
        assert!(turn.wake_at.is_none_or(|it| it > self.now));
    }

    fn check_slots(&self) {
        let running = self.tokens(&[Fate::Executing, Fate::FencedExecuting]).len() as u64;
        assert!(running <= self.limits.slots);
        assert_eq!(running, self.machine.running());
        let unacknowledged = self.tokens(&[Fate::Unacknowledged]).len() as u64;
        assert_eq!(running + unacknowledged, self.machine.in_flight());
        assert_eq!(self.tokens(&[Fate::Queued]).len() as u64, self.machine.queued());
        assert_eq!(self.tokens(&[Fate::Held]).len() as u64, self.machine.stats().held);
        if running < self.limits.slots && !self.suspended {
            assert!(self.heads().is_empty(), "a slot is idle");
        }
    }

    /// Queued records with nobody before them in their lane.
    fn heads(&self) -> Vec<u64> {
        let mut heads = self.tokens(&[Fate::Queued]);
        heads.retain(|token| {
            self.in_lane_of(*token)
                .all(|(other, it)| !it.is_active() && (other > *token || it.fate != Fate::Queued))
        });
        heads
    }

    fn check_commits(&mut self, turn: &Turn) {
        let mut expected = Vec::new();
        for (&partition, owned) in &mut self.owned {
            let unfinished = owned.received.iter().find(|(_, done)| !**done).map(|(it, _)| *it);
            let open = unfinished.into_iter().chain(owned.refused.first().copied()).min();
            owned.base = open.unwrap_or(owned.next());
            if owned.base > owned.told || std::mem::take(&mut owned.untold) {
                owned.untold = false;
                owned.told = owned.base;
                expected.push((partition, owned.base));
            }
        }
        assert_eq!(turn.commits, expected);
    }

    fn check_pauses(&mut self, turn: &Turn) {
        assert!(!self.suspended || turn.pause.is_empty() && turn.resume.is_empty());
        for (partitions, pauses) in [(&turn.pause, true), (&turn.resume, false)] {
            for partition in partitions {
                let owned = self.owned.get_mut(partition).expect("it is ours");
                let before = std::mem::replace(&mut owned.paused, pauses);
                assert_ne!(before, pauses, "partition {partition} paused or resumed twice");
            }
        }
        for (&partition, owned) in &self.owned {
            let queued = self.tokens(&[Fate::Queued]).into_iter();
            let count =
                queued.filter(|it| self.ledger[it].place.partition == partition).count() as u64;
            let full = count > self.limits.max_queued_records;
            assert!(self.suspended || owned.paused || !full, "partition {partition} is too full");
        }
        if self.machine.queued() == 0 && !self.suspended {
            assert!(self.owned.values().all(|it| !it.paused), "paused with nothing queued");
        }
    }
}

impl Entry {
    fn new(place: Place) -> Self {
        Self {
            place,
            lane: None,
            deadline: None,
            covers: Box::default(),
            covered_by: None,
            end: None,
            cancelled: false,
            fate: Fate::Queued,
        }
    }

    fn is_active(&self) -> bool {
        matches!(self.fate, Fate::Executing | Fate::FencedExecuting | Fate::Unacknowledged)
    }

    fn is_ended(&self) -> bool {
        matches!(self.fate, Fate::Acknowledged | Fate::Settled(_))
    }
}

impl Owned {
    fn from_position(position: u64) -> Self {
        Self {
            epoch: 0,
            position,
            told: position,
            base: position,
            untold: false,
            paused: false,
            received: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// One after the highest received.
    fn next(&self) -> u64 {
        let received = self.received.last_key_value().map(|(offset, _)| offset + 1);
        received.unwrap_or(0).max(self.base)
    }
}
