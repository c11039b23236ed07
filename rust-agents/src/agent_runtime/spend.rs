//! The purse exists so that one run cannot spend more than it was given, however many attempts it
//! takes and however much it asks for at once; it never knows what anything costs.

/// What a run may spend in all its attempts together; `None` is any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Calls.
    pub calls: Option<u64>,
    /// Tokens of a model, in and out.
    pub tokens: Option<u64>,
    /// Money, in millionths of a dollar.
    pub micro_usd: Option<u64>,
}

/// Tokens and money, of one call or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Tokens of a model, in and out.
    pub tokens: u64,
    /// Money, in millionths of a dollar.
    pub micro_usd: u64,
}

/// Why a call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The run has no calls left.
    Calls,
    /// The run has not enough tokens left.
    Tokens,
    /// The run has not enough money left.
    Money,
    /// The run is cancelled, lost or over.
    Ended,
}

impl Refusal {
    /// The word for it across the boundary.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::Ended => "ended",
        }
    }
}

/// The budget of one run, and what is spent or reserved of it.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    budget: Budget,
    calls: u64,
    gone: Amount,
    /// Asks that are reserved and not settled, in the order they came.
    pub(crate) asks: Vec<u64>,
}

impl Purse {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Sets the price of a call aside, or says what there is not enough of.
    pub(crate) fn reserve(&mut self, ask: u64, price: Amount) -> Result<(), Refusal> {
        let calls = self.calls.saturating_add(1);
        let gone = self.gone.plus(price);
        for (most, after, refusal) in [
            (self.budget.calls, calls, Refusal::Calls),
            (self.budget.tokens, gone.tokens, Refusal::Tokens),
            (self.budget.micro_usd, gone.micro_usd, Refusal::Money),
        ] {
            if most.is_some_and(|most| after > most) && !mutant!(BudgetIgnored) {
                return Err(refusal);
            }
        }
        (self.calls, self.gone) = (calls, gone);
        self.asks.push(ask);
        Ok(())
    }

    /// Takes what a call really cost instead of what was set aside for it.
    pub(crate) fn settle(&mut self, ask: u64, reserved: Amount, really: Amount) {
        self.asks.retain(|it| *it != ask);
        if mutant!(SpendNotSettled) {
            return;
        }
        self.gone = self.gone.minus(reserved).plus(really);
    }

    /// Puts everything back that was set aside for a call that is not made.
    pub(crate) fn release(&mut self, ask: u64, reserved: Amount) {
        self.calls = self.calls.saturating_sub(u64::from(!mutant!(CallNotGivenBack)));
        self.settle(ask, reserved, Amount::default());
    }
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            micro_usd: self.micro_usd.saturating_add(other.micro_usd),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            micro_usd: self.micro_usd.saturating_sub(other.micro_usd),
        }
    }
}
