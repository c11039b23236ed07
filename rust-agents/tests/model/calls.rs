//! The calls of all runs, as the ledger knows them: who asked for what, and what may go when.

use std::collections::BTreeMap;

use _rust::{Amount, Ask, Budget, Limits, Refusal, Turn};

/// What one run spent or reserved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Purse {
    pub(crate) budget: Budget,
    calls: u64,
    tokens: u64,
    micro_usd: u64,
}

#[derive(Clone, Debug)]
struct Call {
    token: u64,
    reserved: Amount,
    granted: bool,
}

#[derive(Debug)]
pub(crate) struct Calls {
    /// By ask, which is also their order.
    open: BTreeMap<u64, Call>,
    purses: BTreeMap<u64, Purse>,
    per_call: Option<Rate>,
    per_token: Option<Rate>,
    granted: Vec<u64>,
    refused: BTreeMap<u64, Refusal>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    unit_ms: i64,
    at_once: i64,
    paid_until: Option<i64>,
}

impl Calls {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            open: BTreeMap::new(),
            purses: BTreeMap::new(),
            per_call: limits.calls_per_minute.map(Rate::new),
            per_token: limits.tokens_per_minute.map(Rate::new),
            granted: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    pub(crate) fn asks(&self) -> impl Iterator<Item = u64> + use<> {
        self.open.keys().copied().collect::<Vec<u64>>().into_iter()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.open.values().filter(|it| !it.granted).count()
    }

    pub(crate) fn give(&mut self, token: u64, budget: Budget) {
        self.purses.insert(token, Purse { budget, ..Purse::default() });
    }

    /// A run asks; `runs` says whether it may still go on.
    pub(crate) fn ask(&mut self, asked: &Ask, runs: bool) {
        let &Ask { ask, token, price } = asked;
        let purse = self.purses.entry(token).or_default();
        let (calls, tokens) = (purse.calls + 1, purse.tokens + price.tokens);
        let micro_usd = purse.micro_usd + price.micro_usd;
        let Budget { calls: most_calls, tokens: most_tokens, micro_usd: most_money } = purse.budget;
        let refusal = if !runs {
            Refusal::Ended
        } else if most_calls.is_some_and(|most| calls > most) {
            Refusal::Calls
        } else if most_tokens.is_some_and(|most| tokens > most) {
            Refusal::Tokens
        } else if most_money.is_some_and(|most| micro_usd > most) {
            Refusal::Money
        } else {
            (purse.calls, purse.tokens, purse.micro_usd) = (calls, tokens, micro_usd);
            self.open.insert(ask, Call { token, reserved: price, granted: false });
            return;
        };
        self.refused.insert(ask, refusal);
    }

    pub(crate) fn spend(&mut self, ask: u64, really: Amount) {
        let Some(Call { token, reserved, granted }) = self.open.remove(&ask) else {
            return;
        };
        let purse = self.purses.get_mut(&token).expect("whoever asked has one");
        purse.tokens -= reserved.tokens;
        purse.micro_usd -= reserved.micro_usd;
        if granted {
            purse.tokens += really.tokens;
            purse.micro_usd += really.micro_usd;
            if let Some(rate) = &mut self.per_token {
                rate.settle(reserved.tokens, really.tokens);
            }
        } else {
            purse.calls -= 1;
        }
    }

    /// A run may not go on: what it waits for is refused.
    pub(crate) fn refuse(&mut self, token: u64) {
        let waiting = self.open.iter().filter(|(_, it)| it.token == token && !it.granted);
        for ask in waiting.map(|(ask, _)| *ask).collect::<Vec<u64>>() {
            self.spend(ask, Amount::default());
            self.refused.insert(ask, Refusal::Ended);
        }
    }

    /// An attempt ended: what was granted stays booked as it was reserved.
    pub(crate) fn end(&mut self, token: u64) {
        self.refuse(token);
        self.open.retain(|_, it| it.token != token);
    }

    /// When the first that waits may go.
    pub(crate) fn next_grant(&self, now: i64) -> Option<i64> {
        self.open.values().find(|it| !it.granted)?;
        let rates = [self.per_call, self.per_token];
        let times = rates.into_iter().flatten().filter_map(Rate::allowed_at);
        Some(times.max().unwrap_or(now))
    }

    pub(crate) fn grant(&mut self, now: i64) {
        while self.next_grant(now).is_some_and(|it| it <= now) {
            let first = self.open.iter_mut().find(|(_, it)| !it.granted);
            let (ask, call) = first.expect("somebody waits");
            call.granted = true;
            self.granted.push(*ask);
            if let Some(rate) = &mut self.per_call {
                rate.take(now, 1);
            }
            if let Some(rate) = &mut self.per_token {
                rate.take(now, call.reserved.tokens);
            }
        }
    }

    /// Compares what the machine said with what it had to say, and names what happened.
    pub(crate) fn check(&mut self, turn: &Turn) -> Vec<&'static str> {
        assert_eq!(turn.granted, std::mem::take(&mut self.granted));
        let told: BTreeMap<u64, Refusal> = turn.refused.iter().copied().collect();
        assert_eq!(told.len(), turn.refused.len(), "refused twice: {turn:?}");
        assert_eq!(told, std::mem::take(&mut self.refused));
        let refused = told.values().map(|it| match it {
            Refusal::Calls => "no calls",
            Refusal::Tokens => "no tokens",
            Refusal::Money => "no money",
            Refusal::Ended => "over",
        });
        let granted = turn.granted.first().map(|_| "granted");
        refused.chain(granted).chain((self.waiting() > 0).then_some("rate")).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Rate {
    fn new(per_minute: u64) -> Self {
        let per_minute = i64::try_from(per_minute).expect("small");
        assert_eq!(60_000 % per_minute, 0, "whole milliseconds");
        let at_once = (per_minute / 10).max(1);
        Self { unit_ms: 60_000 / per_minute, at_once, paid_until: None }
    }

    fn allowed_at(self) -> Option<i64> {
        self.paid_until.map(|it| it - (self.at_once - 1) * self.unit_ms)
    }

    fn take(&mut self, now: i64, units: u64) {
        let units = i64::try_from(units).expect("small");
        let from = self.paid_until.map_or(now, |it| it.max(now));
        self.paid_until = Some(from + units * self.unit_ms);
    }

    fn settle(&mut self, taken: u64, really: u64) {
        let more = i64::try_from(really).expect("small") - i64::try_from(taken).expect("small");
        self.paid_until = self.paid_until.map(|it| it + more * self.unit_ms);
    }
}
