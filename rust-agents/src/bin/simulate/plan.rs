//! A plan exists to fix, from its seed alone, everything of a schedule that does not depend on what
//! the machine answers: the limits, the records, what each run will do, and which faults come when.

use _rust::{Amount, Budget, Limits};

use crate::dice::Dice;

/// One record of the input topic, in the order of publication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    pub(crate) at: i64,
    pub(crate) partition: usize,
    /// `None` is a record without a key, and so without an order.
    pub(crate) key: Option<usize>,
    /// Whose result it asks for. A record that repeats an earlier one has its subject.
    pub(crate) subject: usize,
    pub(crate) nbytes: u32,
    /// Offsets left out before it, as by compaction and transactions.
    pub(crate) gap: u64,
}

/// What is asked once, however often it is published: one identity in one partition, or a join that
/// fired.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) partition: usize,
    pub(crate) key: Option<usize>,
    pub(crate) identity: u64,
    /// In the time of the world.
    pub(crate) deadline: Option<i64>,
    pub(crate) script: Script,
    pub(crate) budget: Budget,
    /// The join that fires when this one's result is in the log.
    pub(crate) fires: Option<usize>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    /// An attempt takes this long.
    pub(crate) lasts: i64,
    /// So many attempts fail before one succeeds; more than there are attempts is poison.
    pub(crate) failures: u32,
    pub(crate) retry_after: Option<i64>,
    /// Runs until it is cancelled.
    pub(crate) hangs: bool,
    /// What it takes to end once it is cancelled.
    pub(crate) winds_down: i64,
    /// How many calls an attempt makes, all at once or one after the other.
    pub(crate) calls: u32,
    pub(crate) gathers: bool,
    /// After this time it does without a call, or ends whatever its calls do.
    pub(crate) gives_up: Option<i64>,
    pub(crate) impatient: bool,
    /// What it thinks that a call costs, and what it does cost.
    pub(crate) estimate: Amount,
    pub(crate) really: Amount,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The process dies, and another one takes its place after a while.
    Crash { member: usize, back_after: i64 },
    /// The process stands still; longer than its session, it is a zombie.
    Freeze { member: usize, lasts: i64 },
    /// The member's clock jumps forward.
    Jump { member: usize, by: i64 },
    /// A rebalance for no reason of ours.
    Rebalance,
    /// A member goes and comes back, politely.
    Leave { member: usize, back_after: i64 },
    /// Answers of the broker get lost or come late for some time.
    Unsteady { lasts: i64 },
    /// What was delivered is delivered again, by the same member.
    Rewind { member: usize },
    /// The broker forgets the metadata of all commits.
    Amnesia,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) partitions: usize,
    pub(crate) members: usize,
    pub(crate) limits: Limits,
    pub(crate) batch: usize,
    pub(crate) session: i64,
    pub(crate) rebalance_timeout: i64,
    pub(crate) drain: i64,
    /// The most one way to the broker takes, undisturbed.
    pub(crate) latency: i64,
    /// The driver reports what it must not: ends and acknowledgements of anything.
    pub(crate) babbles: bool,
    pub(crate) inputs: Vec<Input>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) faults: Vec<(i64, Fault)>,
    /// Keys are numbered over all partitions.
    pub(crate) keys: usize,
}

impl Plan {
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let mut plan = Self {
            partitions: dice.size(1, 3),
            members: dice.pick(&[1, 1, 2, 2, 3]),
            limits: limits(dice),
            batch: dice.size(1, 8),
            session: dice.between(20, 80),
            rebalance_timeout: 0,
            drain: dice.between(1, 40),
            latency: dice.between(1, 6),
            babbles: dice.one_in(4),
            inputs: Vec::new(),
            subjects: Vec::new(),
            faults: Vec::new(),
            keys: 0,
        };
        // Who drains longer than the others wait is out, and comes back, and so on.
        plan.rebalance_timeout = plan.drain + dice.between(15, 40);
        plan.publish(dice);
        plan.disturb(dice);
        plan
    }

    fn publish(&mut self, dice: &mut Dice) {
        let keys_each = dice.size(1, 4);
        self.keys = self.partitions * keys_each;
        let records = dice.size(8, 40);
        let pace = dice.pick(&[0, 2, 8]);
        let hot = dice.one_in(3);
        let habits = Habits::roll(dice);
        let mut at = 0;
        for number in 0..records {
            at += dice.between(0, pace);
            if number > 0 && dice.one_in(habits.repeats) {
                // The same event once more. Its key, and so its partition, are the same.
                let mut again = dice.pick(&[number - 1, number / 2, number.saturating_sub(3)]);
                again = again.min(number - 1);
                let input = Input { at, gap: 0, ..self.inputs[again].clone() };
                self.inputs.push(input);
                continue;
            }
            let partition = dice.size(0, self.partitions - 1);
            let key = (!dice.one_in(8)).then(|| {
                let own = if hot && !dice.one_in(3) { 0 } else { dice.size(0, keys_each - 1) };
                partition * keys_each + own
            });
            let subject = self.subjects.len();
            // Another partition may hold an event of the same identity: it is another event.
            let identity = match self.subjects.last() {
                Some(last)
                    if last.partition != partition
                        && last.identity + 1 == subject as u64
                        && dice.one_in(4) =>
                {
                    last.identity
                }
                _ => subject as u64,
            };
            self.subjects.push(Subject {
                partition,
                key,
                identity,
                deadline: dice.one_in(habits.hurries).then(|| at + dice.between(3, 160)),
                script: habits.script(dice),
                budget: budget(dice),
                fires: None,
            });
            if dice.one_in(habits.joins) {
                let join = Subject {
                    partition,
                    key: key.filter(|_| dice.one_in(2)),
                    identity: 1_000_000 + subject as u64,
                    deadline: None,
                    script: habits.script(dice),
                    budget: budget(dice),
                    fires: None,
                };
                self.subjects[subject].fires = Some(subject + 1);
                self.subjects.push(join);
            }
            self.inputs.push(Input {
                at,
                partition,
                key,
                subject,
                nbytes: dice.roll(40) as u32,
                gap: if dice.one_in(10) { dice.roll(3) } else { 0 },
            });
        }
    }

    fn disturb(&mut self, dice: &mut Dice) {
        let faults = dice.pick(&[0, 1, 2, 3, 4, 6]);
        let last = self.inputs.last().map_or(0, |it| it.at) + 60;
        for _ in 0..faults {
            let member = dice.size(0, self.members - 1);
            let fault = match dice.roll(12) {
                0..=2 => Fault::Crash { member, back_after: dice.between(1, 100) },
                3..=4 => Fault::Freeze { member, lasts: dice.between(2, 160) },
                5 => Fault::Jump { member, by: dice.pick(&[1, 10, 100, 3_600_000]) },
                6..=7 => Fault::Rebalance,
                8 => Fault::Leave { member, back_after: dice.between(1, 60) },
                9 => Fault::Unsteady { lasts: dice.between(10, 100) },
                10 => Fault::Rewind { member },
                _ => Fault::Amnesia,
            };
            self.faults.push((dice.between(0, last), fault));
        }
    }
}

/// What is usual in a schedule; each is "one in".
struct Habits {
    repeats: u64,
    hurries: u64,
    joins: u64,
    fails: u64,
    hangs: u64,
    asks: u64,
    longest: i64,
}

impl Habits {
    fn roll(dice: &mut Dice) -> Self {
        Self {
            repeats: dice.pick(&[5, 12, 1_000]),
            hurries: dice.pick(&[2, 8, 1_000]),
            joins: dice.pick(&[4, 1_000_000]),
            fails: dice.pick(&[3, 10, 1_000]),
            hangs: dice.pick(&[10, 1_000]),
            asks: dice.pick(&[3, 1_000]),
            longest: dice.pick(&[0, 5, 30]),
        }
    }

    fn script(&self, dice: &mut Dice) -> Script {
        let fails = dice.one_in(self.fails);
        let asks = dice.one_in(self.asks);
        Script {
            lasts: dice.between(0, self.longest),
            failures: if fails { dice.pick(&[1, 1, 2, 100]) } else { 0 },
            retry_after: (fails && dice.one_in(3)).then(|| dice.between(1, 120)),
            hangs: dice.one_in(self.hangs),
            winds_down: if dice.one_in(4) { dice.between(0, 20) } else { 0 },
            calls: if asks { dice.size(1, 3) as u32 } else { 0 },
            gathers: asks && dice.one_in(2),
            gives_up: (asks && dice.one_in(3)).then(|| dice.between(0, 20)),
            impatient: asks && dice.one_in(3),
            estimate: if asks { amount(dice) } else { Amount::default() },
            really: if asks { amount(dice) } else { Amount::default() },
        }
    }
}

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        slots: dice.size(1, 4) as u64,
        max_queued_records: dice.size(1, 12) as u64,
        max_queued_bytes: dice.size(1, 200) as u64,
        timeout_ms: dice.one_in(2).then(|| dice.size(5, 60) as u64),
        retries: dice.roll(4),
        backoff_ms: dice.pick(&[0, 5, 20]),
        max_backoff_ms: dice.pick(&[10, 30, 200]),
        retry_budget: dice.pick(&[1, 2, 5, 100]),
        dedupe_records: dice.pick(&[0, 3, 10, 1_000]),
        dedupe_ms: dice.pick(&[20, 100, 3_600_000]),
        calls_per_minute: dice.pick(&[None, None, Some(30), Some(600)]),
        tokens_per_minute: dice.pick(&[None, None, Some(2_000)]),
        max_done_bytes: dice.pick(&[3, 6, 2_600]),
        seed: dice.roll(1 << 32),
    }
}

fn amount(dice: &mut Dice) -> Amount {
    Amount { tokens: dice.roll(100), micro_usd: dice.roll(50) }
}

fn budget(dice: &mut Dice) -> Budget {
    Budget {
        calls: dice.pick(&[None, None, Some(0), Some(2)]),
        tokens: dice.pick(&[None, None, Some(120)]),
        micro_usd: dice.pick(&[None, None, Some(80)]),
    }
}
