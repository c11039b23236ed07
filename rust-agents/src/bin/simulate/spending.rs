//! Spending is judged here: what a run may take from its budget, and all runs together from the rates.
//! Both are kept a second time, plainly.

use _rust::{Amount, Ask, Budget, Refusal, Spent, Turn};

use crate::member::{Member, Stage};
use crate::verdict::{Invariant, Verdict, broken, ensure};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Asked for in the turn that is being judged.
    New,
    Waiting,
    Granted,
    /// It must be refused in the turn that is being judged.
    MustRefuse(Refusal),
    Over,
}

/// One call of a run; its name is its place in the member's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) token: u64,
    pub(crate) price: Amount,
    pub(crate) call: Call,
    /// The run has said what it cost.
    pub(crate) ended: bool,
}

/// What a run has used of its budget, reservations included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) calls: u64,
    pub(crate) amount: Amount,
}

/// When how much was taken from a rate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// In units of one part of `per_minute` of a millisecond.
    paid_until: Option<i128>,
}

impl Taken {
    /// Whether something may be taken; a tenth of a minute's units may be taken at once.
    fn allows(&self, now: i64, per_minute: u64) -> bool {
        let burst = i128::from((per_minute / 10).max(1) - 1) * 60_000;
        self.paid_until.is_none_or(|it| it - burst <= i128::from(now) * i128::from(per_minute))
    }

    fn take(&mut self, now: i64, per_minute: u64, units: u64) {
        let now = i128::from(now) * i128::from(per_minute);
        let from = self.paid_until.map_or(now, |it| it.max(now));
        self.paid_until = Some(from + i128::from(units) * 60_000);
    }

    fn correct(&mut self, taken: u64, really: u64) {
        if let Some(paid_until) = &mut self.paid_until {
            *paid_until += (i128::from(really) - i128::from(taken)) * 60_000;
        }
    }
}

impl Member {
    pub(crate) fn book_spent(&mut self, spent: &[Spent]) {
        for &Spent { ask, price } in spent {
            let asked = &mut self.asks[ask as usize];
            let reserved = asked.price;
            let used = &mut self.runs[asked.token as usize].used;
            match asked.call {
                Call::Granted => {
                    *used = used.settled(reserved, price);
                    self.tokens_taken.correct(reserved.tokens, price.tokens);
                }
                Call::Waiting => {
                    *used = used.settled(reserved, Amount::default());
                    used.calls -= 1;
                }
                Call::New | Call::MustRefuse(_) | Call::Over => continue,
            }
            asked.call = Call::Over;
        }
    }

    /// A run ended, or is not to go on: its calls that wait are refused. Those that are made are
    /// forgotten once it ended, and stay on its account.
    pub(crate) fn end_asks(&mut self, token: u64, ended: bool) {
        if self.asks.is_empty() {
            return;
        }
        for asked in self.asks.iter_mut().filter(|it| it.token == token) {
            match asked.call {
                Call::Waiting => {
                    asked.call = Call::MustRefuse(Refusal::Ended);
                    let used = &mut self.runs[token as usize].used;
                    *used = used.settled(asked.price, Amount::default());
                    used.calls -= 1;
                }
                Call::Granted if ended => asked.call = Call::Over,
                _ => {}
            }
        }
    }

    pub(crate) fn book_asked(&mut self, asked: &[Ask], budgets: impl Fn(usize) -> Budget) {
        for &Ask { ask, token, price } in asked {
            let run = &mut self.runs[token as usize];
            let goes_on = run.stage == Stage::Executing && !run.cancelled;
            let call = if goes_on {
                if let Some(refusal) = run.used.with(price).exceeds(budgets(run.subject)) {
                    Call::MustRefuse(refusal)
                } else {
                    run.used = run.used.with(price);
                    Call::Waiting
                }
            } else {
                Call::MustRefuse(Refusal::Ended)
            };
            self.asks[ask as usize].call = call;
        }
    }

    /// Compares the answers with what they must be; cancelled runs are booked by now.
    pub(crate) fn judge_spending(
        &mut self,
        now: i64,
        turn: &Turn,
        calls_per_minute: Option<u64>,
        tokens_per_minute: Option<u64>,
    ) -> Verdict {
        for &(ask, refusal) in &turn.refused {
            let Some(asked) = self.asks.get_mut(ask as usize) else {
                return broken(Invariant::Spend, || format!("{ask} is refused, but unknown"));
            };
            ensure(asked.call == Call::MustRefuse(refusal), Invariant::Spend, || {
                format!("{ask} is refused for {refusal:?}: {asked:?}")
            })?;
            asked.call = Call::Over;
        }
        for &ask in &turn.granted {
            let first = self.asks.iter().position(|it| it.call == Call::Waiting);
            ensure(first == Some(ask as usize), Invariant::Spend, || {
                format!(
                    "{ask} is granted, but {first:?} is first: {:?}",
                    self.asks.get(ask as usize)
                )
            })?;
            let asked = &mut self.asks[ask as usize];
            asked.call = Call::Granted;
            for (taken, per_minute, units) in [
                (&mut self.calls_taken, calls_per_minute, 1),
                (&mut self.tokens_taken, tokens_per_minute, asked.price.tokens),
            ] {
                let Some(per_minute) = per_minute else { continue };
                ensure(taken.allows(now, per_minute), Invariant::Rate, || {
                    format!("{ask} is granted at {now}, beyond {per_minute} per minute: {taken:?}")
                })?;
                taken.take(now, per_minute, units);
            }
        }
        let missed = self.asks.iter().position(|it| matches!(it.call, Call::MustRefuse(_)));
        ensure(missed.is_none(), Invariant::Spend, || {
            format!("{missed:?} is not refused: {:?}", missed.map(|it| self.asks[it]))
        })
    }
}

impl Used {
    fn with(self, price: Amount) -> Self {
        let Amount { tokens, micro_usd } = self.amount;
        let tokens = tokens + price.tokens;
        let micro_usd = micro_usd + price.micro_usd;
        Self { calls: self.calls + 1, amount: Amount { tokens, micro_usd } }
    }

    fn settled(self, reserved: Amount, really: Amount) -> Self {
        let Amount { tokens, micro_usd } = self.amount;
        let tokens = tokens - reserved.tokens + really.tokens;
        let micro_usd = micro_usd - reserved.micro_usd + really.micro_usd;
        Self { calls: self.calls, amount: Amount { tokens, micro_usd } }
    }

    fn exceeds(self, budget: Budget) -> Option<Refusal> {
        let over = |used: u64, most: Option<u64>| most.is_some_and(|most| used > most);
        if over(self.calls, budget.calls) {
            Some(Refusal::Calls)
        } else if over(self.amount.tokens, budget.tokens) {
            Some(Refusal::Tokens)
        } else if over(self.amount.micro_usd, budget.micro_usd) {
            Some(Refusal::Money)
        } else {
            None
        }
    }
}
