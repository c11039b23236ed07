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

mod calls;
mod ledger;
mod owned;

use std::collections::{BTreeMap, BTreeSet};

use _rust::{
    Amount, Ask, Assigned, Budget, Failure, Identity, Input, Lane, Limits, Offer, Place, Seen,
    Spent, Turn,
};

use ledger::{Committed, Fate, Ledger};

const PARTITIONS: u32 = 3;
const LANES: [&[u8]; 3] = [b"a", b"b", b"c"];
const EVENTS: [&[u8]; 3] = [b"x", b"y", b"z"];

#[test]
fn random_histories_keep_the_invariants() {
    let mut reached = BTreeSet::new();
    for seed in 1..=200 {
        let mut history = History::new(seed);
        for _ in 0..150 {
            history.step();
        }
        if seed % 2 == 0 {
            history.finish_everything();
        }
        history.lose_everything();
        reached.append(&mut history.ledger.reached);
    }
    // A history that does not get there shows nothing.
    let all =
        ["careful", "duplicate", "exhausted", "expired while it waited for a retry", "granted"];
    let all = all.into_iter().chain(["no calls", "no money", "no tokens", "over", "rate"]);
    let all = all.chain(["restored", "retry waits for budget", "without offset"]);
    assert_eq!(reached, all.collect());
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

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).expect("small")]
    }

    fn ms(&mut self, sides: u64) -> i64 {
        i64::try_from(self.roll(sides)).expect("small")
    }
}

/// What a consumer, its agent and a group do, one arbitrary turn after the other.
struct History {
    dice: Dice,
    ledger: Ledger,
    epoch: u64,
    token: u64,
    ask: u64,
    /// What is read next, by partition.
    read: BTreeMap<u32, u64>,
    /// What stands in the log, by partition.
    committed: BTreeMap<u32, Committed>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let limits = Limits {
            slots: 1 + dice.roll(4),
            max_queued_records: 1 + dice.roll(5),
            max_queued_bytes: 1 + dice.roll(60),
            timeout_ms: dice.one_in(2).then_some(15),
            retries: dice.roll(3),
            backoff_ms: 1 + dice.roll(4),
            max_backoff_ms: 6,
            retry_budget: 1 + dice.roll(3),
            dedupe_records: dice.pick(&[0, 3, 50]),
            dedupe_ms: dice.pick(&[4, 100]),
            // A call takes 3 s or 1 ms, a token 1 ms or 20 ms: whole numbers, to keep the ledger simple.
            calls_per_minute: dice.pick(&[None, Some(20), Some(60_000)]),
            tokens_per_minute: dice.pick(&[None, Some(3_000), Some(60_000)]),
            seed: dice.roll(9),
            ..Limits::default()
        };
        Self {
            dice,
            ledger: Ledger::new(limits, -20),
            epoch: 0,
            token: 0,
            ask: 0,
            read: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// Something happens.
    fn step(&mut self) -> Turn {
        self.ledger.now += self.dice.pick(&[0, 0, 1, 2, 9]);
        if self.dice.one_in(60) {
            self.ledger.now += 700;
        }
        let mut input = self.reports();
        input.revoked = self.dice.one_in(20);
        let suspended = self.ledger.suspended;
        if self.epoch == 0 || self.dice.one_in(if suspended { 3 } else { 40 }) {
            input.assigned = Some(self.assignment());
            input.seen = (0..self.dice.roll(3)).filter_map(|_| self.seen()).collect();
        }
        input.offered = (0..self.dice.roll(4)).map(|_| self.offer()).collect();
        let running = self.ledger.tokens(&[Fate::Executing, Fate::FencedExecuting]);
        for token in running {
            if self.dice.one_in(3) {
                input.asked.push(self.asks(token));
            }
        }
        self.turn(&input)
    }

    /// What runs and the outbox say since the last turn.
    fn reports(&mut self) -> Input {
        let executing = self.ledger.tokens(&[Fate::Executing, Fate::FencedExecuting]);
        let ended = self.ledger.tokens(&[Fate::Unacknowledged]);
        let executed = self.dice.some_of(executing.clone());
        let acknowledged = self.dice.some_of(ended.into_iter().chain(executed.clone()));
        let mut failed = self.dice.some_of(executing);
        failed.retain(|_| self.dice.one_in(2));
        let mut input = Input { executed, acknowledged, ..Input::default() };
        if self.dice.one_in(8) {
            // Late, early and unknown reports.
            let any = self.dice.roll(self.token + 3);
            input.executed.push(any);
            failed.push(any);
            input.acknowledged.push(any);
        }
        for token in failed {
            let retry_after = self.dice.pick(&[None, None, Some(0), Some(3), Some(30)]);
            input.failed.push(Failure { token, retry_after });
        }
        let asks = self.ledger.calls.asks();
        for ask in self.dice.some_of(asks.chain([self.ask])) {
            input.spent.push(Spent { ask, price: self.price() });
        }
        input
    }

    fn offer(&mut self) -> Offer {
        let place = self.place();
        let deadline = self.dice.one_in(2).then(|| self.ledger.now - 2);
        let token = self.token;
        self.token += 1;
        Offer {
            token,
            place,
            lane: self.dice.pick(&[None, Some(0), Some(1), Some(2)]).map(|it| Lane::of(LANES[it])),
            deadline: deadline.map(|past| past + self.dice.ms(20)),
            nbytes: u32::try_from(self.dice.roll(30)).expect("small"),
            identity: self.identity(),
            timestamp: self.dice.ms(10),
            budget: self.dice.pick(&[
                Budget::default(),
                Budget { calls: Some(1), ..Budget::default() },
                Budget { tokens: Some(50), ..Budget::default() },
                Budget { micro_usd: Some(5), ..Budget::default() },
            ]),
        }
    }

    fn asks(&mut self, token: u64) -> Ask {
        let ask = self.ask;
        self.ask += 1;
        // Sometimes a run that does not run any more.
        let token = if self.dice.one_in(9) { self.dice.roll(self.token + 1) } else { token };
        Ask { ask, token, price: self.price() }
    }

    fn price(&mut self) -> Amount {
        Amount { tokens: self.dice.roll(30), micro_usd: self.dice.roll(4) }
    }

    fn identity(&mut self) -> Option<Identity> {
        let event = self.dice.roll(9);
        EVENTS.get(usize::try_from(event).expect("small")).map(|it| Identity::of(it))
    }

    /// A record below the position.
    fn seen(&mut self) -> Option<Seen> {
        let partition = self.partition();
        let back = 1 + self.dice.roll(4);
        let offset = self.read.get(&partition)?.checked_sub(back)?;
        Some(Seen { partition, offset, identity: self.identity()?, timestamp: self.dice.ms(10) })
    }

    fn partition(&mut self) -> u32 {
        u32::try_from(self.dice.roll(u64::from(PARTITIONS))).expect("small")
    }

    /// The next record of some partition; sometimes out of order, after a gap, from the past, or none.
    fn place(&mut self) -> Place {
        let partition = self.partition();
        let epoch = if self.dice.one_in(25) { self.epoch.saturating_sub(1) } else { self.epoch };
        if self.dice.one_in(12) {
            return Place { partition, epoch, offset: None };
        }
        let next = self.read.get(&partition).copied().unwrap_or_default();
        let offset = match self.dice.roll(12) {
            0 => next + 2,
            1 => next.saturating_sub(2),
            _ => next,
        };
        self.read.insert(partition, next.max(offset + 1));
        Place { partition, epoch, offset: Some(offset) }
    }

    fn assignment(&mut self) -> Vec<Assigned> {
        self.epoch += 1;
        let mut numbers: Vec<u32> = (0..PARTITIONS).collect();
        numbers.retain(|_| self.dice.one_in(2));
        numbers.into_iter().map(|it| self.assigned(it)).collect()
    }

    /// A partition that comes to us, at its commit or, as after an operator's reset, below it.
    fn assigned(&mut self, partition: u32) -> Assigned {
        let committed = self.committed.get(&partition).cloned();
        let Committed { offset, done, .. } = committed.unwrap_or_default();
        let reset = self.dice.one_in(5);
        let position = if reset { offset.saturating_sub(2) } else { offset };
        self.read.insert(partition, position);
        Assigned {
            partition,
            epoch: self.epoch,
            position,
            adopt: self.dice.one_in(2),
            done: if position == offset { done } else { Box::default() },
            careful_until: if self.dice.one_in(4) { position + 3 } else { 0 },
        }
    }

    fn turn(&mut self, input: &Input) -> Turn {
        let restored = input.assigned.iter().flatten().map(|it| {
            let known = self.committed.get(&it.partition).filter(|_| !it.done.is_empty());
            (it.partition, known.map(|it| it.says.clone()).unwrap_or_default())
        });
        let turn = self.ledger.turn(input, restored.collect());
        for (partition, commit) in self.ledger.commits() {
            // Commits come late, or get lost.
            if self.dice.one_in(2) {
                self.committed.insert(partition, commit);
            }
        }
        turn
    }

    /// All work comes to its end, and everything that was received is committed.
    fn finish_everything(&mut self) {
        self.epoch += 1;
        let numbers: Vec<u32> = self.ledger.owned.keys().copied().collect();
        let assigned = numbers.into_iter().map(|it| Assigned { adopt: true, ..self.assigned(it) });
        let assigned = Some(assigned.collect());
        let mut turn = self.turn(&Input { assigned, ..Input::default() });
        while self.ledger.unfinished() {
            let executed = self.ledger.tokens(&[Fate::Executing, Fate::FencedExecuting]);
            let acknowledged = self.ledger.tokens(&[Fate::Unacknowledged, Fate::Executing]);
            if executed.is_empty() && acknowledged.is_empty() {
                self.ledger.now = turn.wake_at.expect("queued work is stuck");
            }
            turn = self.turn(&Input { executed, acknowledged, ..Input::default() });
        }
        for owned in self.ledger.owned.values() {
            assert_eq!(owned.base, owned.next());
        }
    }

    /// Every token has exactly one end, and nothing is left behind.
    fn lose_everything(&mut self) {
        self.turn(&Input { assigned: Some(vec![]), ..Input::default() });
        let executed = self.ledger.tokens(&[Fate::Executing, Fate::FencedExecuting]);
        self.turn(&Input { executed, ..Input::default() });
        self.ledger.check_nothing_is_left();
    }
}
