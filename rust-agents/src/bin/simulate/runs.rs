//! Runs exist to take their time as their script says: they call, end, fail or hang.

use _rust::{Ask, Failure, Spent};

use crate::event::Arrival;
use crate::member::Stage;
use crate::spending::{Asked, Call};
use crate::tally::Count;
use crate::world::World;

impl World {
    /// Lets a run the machine started take its time.
    pub(crate) fn execute(&mut self, member: usize, token: u64) {
        self.tally.add(Count::Starts, 1);
        let run = self.members[member].run(token);
        let attempt = run.attempts;
        let script = self.subject(run.subject).script;
        if run.skips {
            self.send(member, 0, Arrival::RunEnded { token, attempt });
        } else if script.calls > 0 {
            let run = self.members[member].run_mut(token);
            run.calls_left = script.calls;
            run.calls_open = 0;
            if script.impatient {
                self.send(member, script.lasts, Arrival::RunEnded { token, attempt });
            }
            let at_once = if script.gathers { script.calls } else { 1 };
            for _ in 0..at_once {
                self.ask(member, token);
            }
        } else if !(script.hangs && run.end.is_some()) {
            self.send(member, script.lasts, Arrival::RunEnded { token, attempt });
        }
    }

    pub(crate) fn ask(&mut self, member: usize, token: u64) {
        let it = &mut self.members[member];
        let run = it.run_mut(token);
        run.calls_left -= 1;
        run.calls_open += 1;
        let attempt = run.attempts;
        let script = self.plan.subjects[run.subject].script;
        let price = script.estimate;
        let ask = it.asks.len() as u64;
        it.asks.push(Asked { token, price, call: Call::New, ended: false });
        it.pending.asked.push(Ask { ask, token, price });
        if let Some(patience) = script.gives_up {
            self.send(member, patience, Arrival::CallEnded { ask, attempt });
        }
        self.turn_soon(member);
    }

    /// A call may be made.
    pub(crate) fn call(&mut self, member: usize, ask: u64) {
        let run = self.members[member].run(self.members[member].asks[ask as usize].token);
        let attempt = run.attempts;
        let takes = self.subject(run.subject).script.lasts;
        self.send(member, takes, Arrival::CallEnded { ask, attempt });
    }

    /// A call may not be made: for want of budget, the run ends by that.
    pub(crate) fn refuse(&mut self, member: usize, ask: u64) {
        let token = self.members[member].asks[ask as usize].token;
        let attempt = self.members[member].run(token).attempts;
        self.send(member, 1, Arrival::RunEnded { token, attempt });
    }

    pub(crate) fn end_call(&mut self, member: usize, ask: u64, attempt: u32) {
        let it = &mut self.members[member];
        let asked = &mut it.asks[ask as usize];
        if std::mem::replace(&mut asked.ended, true) {
            return;
        }
        let token = asked.token;
        let run = it.run_mut(token);
        let script = self.plan.subjects[run.subject].script;
        let goes_on = run.stage == Stage::Executing && run.attempts == attempt && !run.reported;
        it.pending.spent.push(Spent { ask, price: script.really });
        self.turn_soon(member);
        if !goes_on {
            return;
        }
        let run = self.members[member].run_mut(token);
        run.calls_open -= 1;
        if run.calls_left > 0 {
            self.ask(member, token);
        } else if run.calls_open == 0 {
            self.send(member, 0, Arrival::RunEnded { token, attempt });
        }
    }

    pub(crate) fn cancel(&mut self, member: usize, token: u64) {
        let run = self.members[member].run(token);
        let attempt = run.attempts;
        let takes = self.subject(run.subject).script.winds_down;
        self.send(member, takes, Arrival::RunEnded { token, attempt });
    }

    pub(crate) fn end_run(&mut self, member: usize, token: u64, attempt: u32) {
        let it = &mut self.members[member];
        let run = it.run_mut(token);
        if run.attempts != attempt
            || run.reported
            || !matches!(run.stage, Stage::Executing | Stage::FencedExecuting)
        {
            return;
        }
        run.reported = true;
        let (skips, cancelled, subject) = (run.skips, run.cancelled, run.subject);
        let script = self.plan.subjects[subject].script;
        if !skips && !cancelled && attempt <= script.failures {
            let retry_after = script.retry_after.map(|it| it as u64);
            it.pending.failed.push(Failure { token, retry_after });
        } else {
            it.pending.executed.push(token);
        }
        if skips {
            // There is nothing to publish.
            it.pending.acknowledged.push(token);
        }
        self.turn_soon(member);
    }
}
