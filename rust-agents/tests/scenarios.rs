//! These scenarios exist to be read: what the machine does in the situations it was built for, on a
//! simulated clock. Random histories are in `model.rs`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test speaks by panicking, and its name is its documentation"
)]

use std::collections::{BTreeSet, VecDeque};

use _rust::{
    AgentRuntime, Amount, Ask, Assigned, Budget, Commit, Failure, Identity, Input, Lane, Limits,
    Misuse, Offer, Place, Reason, Refusal, Seen, Spent, Turn,
};

fn limits() -> Limits {
    Limits { slots: 2, max_queued_records: 100, max_queued_bytes: 10_000, ..Limits::default() }
}

fn machine(limits: Limits) -> AgentRuntime {
    let mut runtime = AgentRuntime::new(limits).expect("limits are sane");
    check(
        &mut runtime,
        0,
        Input { assigned: assigned(1, 0, false), ..Input::default() },
        Turn::default(),
    );
    runtime
}

/// Partition 0, alone.
#[allow(clippy::unnecessary_wraps, reason = "it stands where the input wants an option")]
fn assigned(epoch: u64, position: u64, adopt: bool) -> Option<Vec<Assigned>> {
    Some(vec![Assigned { partition: 0, epoch, position, adopt, ..Assigned::default() }])
}

/// A record of partition 0 whose offset is its token.
fn offer(token: u64, lane: &str) -> Offer {
    Offer {
        token,
        place: Place { partition: 0, epoch: 1, offset: Some(token) },
        lane: (!lane.is_empty()).then(|| Lane::of(lane.as_bytes())),
        deadline: None,
        nbytes: 10,
        ..Offer::default()
    }
}

fn offered(offers: impl IntoIterator<Item = Offer>) -> Input {
    Input { offered: offers.into_iter().collect(), ..Input::default() }
}

fn done(tokens: &[u64]) -> Input {
    Input { executed: tokens.to_vec(), acknowledged: tokens.to_vec(), ..Input::default() }
}

fn failed(token: u64, retry_after: Option<u64>) -> Input {
    Input { failed: vec![Failure { token, retry_after }], ..Input::default() }
}

/// A call that run 0 wants to make.
fn ask(ask: u64, tokens: u64) -> Ask {
    Ask { ask, token: 0, price: Amount { tokens, micro_usd: 0 } }
}

/// One turn, compared as a whole.
#[track_caller]
fn check(runtime: &mut AgentRuntime, now: i64, input: Input, expected: Turn) {
    assert_eq!(runtime.turn(now, input), Ok(expected));
}

#[test]
fn a_hot_key_does_not_hold_up_the_others() {
    let mut runtime = machine(limits());
    let records = [offer(0, "hot"), offer(1, "hot"), offer(2, "hot"), offer(3, "a"), offer(4, "b")];
    check(&mut runtime, 1, offered(records), Turn { start: vec![0, 3], ..Turn::default() });
    // The commit stays where it is, but what is done above it has grown.
    check(
        &mut runtime,
        2,
        done(&[3]),
        Turn { start: vec![4], commits: vec![(0, 0)], ..Turn::default() },
    );
    check(
        &mut runtime,
        3,
        done(&[0]),
        Turn { start: vec![1], commits: vec![(0, 1)], ..Turn::default() },
    );
}

#[test]
fn no_lane_starves() {
    let mut runtime = machine(Limits { slots: 1, ..limits() });
    let records = [offer(0, "a"), offer(1, "a"), offer(2, "a"), offer(3, "b")];
    check(&mut runtime, 1, offered(records), Turn { start: vec![0], ..Turn::default() });
    // "b" became ready before the second of "a" did.
    check(
        &mut runtime,
        2,
        done(&[0]),
        Turn { start: vec![3], commits: vec![(0, 1)], ..Turn::default() },
    );
    check(
        &mut runtime,
        3,
        done(&[3]),
        Turn { start: vec![1], commits: vec![(0, 1)], ..Turn::default() },
    );
}

#[test]
fn a_slot_is_freed_by_the_end_of_the_run_and_a_lane_by_its_acknowledgement() {
    let mut runtime = machine(Limits { slots: 1, ..limits() });
    let records = [offer(0, "a"), offer(1, "a"), offer(2, "b")];
    check(&mut runtime, 1, offered(records), Turn { start: vec![0], ..Turn::default() });
    let ended = Input { executed: vec![0], ..Input::default() };
    check(&mut runtime, 2, ended, Turn { start: vec![2], ..Turn::default() });
    assert_eq!((runtime.running(), runtime.in_flight(), runtime.queued()), (1, 2, 1));
}

#[test]
fn an_acknowledgement_of_a_run_that_still_executes_is_ignored() {
    let mut runtime = machine(limits());
    check(&mut runtime, 1, offered([offer(0, "a")]), Turn { start: vec![0], ..Turn::default() });
    let early = Input { acknowledged: vec![0], ..Input::default() };
    check(&mut runtime, 2, early, Turn::default());
    check(&mut runtime, 3, done(&[0]), Turn { commits: vec![(0, 1)], ..Turn::default() });
}

#[test]
fn the_deadline_counts_before_the_start_and_the_timeout_after_it() {
    let mut runtime = machine(Limits { slots: 1, timeout_ms: Some(50), ..limits() });
    let late = Offer { deadline: Some(40), ..offer(2, "") };
    let dead = Offer { deadline: Some(10), ..offer(3, "") };
    check(
        &mut runtime,
        10,
        offered([offer(0, ""), offer(1, ""), late, dead]),
        Turn {
            start: vec![0],
            settled: vec![(3, Reason::Expired)],
            wake_at: Some(40),
            ..Turn::default()
        },
    );
    check(
        &mut runtime,
        40,
        Input::default(),
        Turn { settled: vec![(2, Reason::Expired)], wake_at: Some(60), ..Turn::default() },
    );
    check(&mut runtime, 60, Input::default(), Turn { cancel: vec![0], ..Turn::default() });
    check(
        &mut runtime,
        61,
        done(&[0]),
        Turn { start: vec![1], commits: vec![(0, 1)], wake_at: Some(111), ..Turn::default() },
    );
    // Both expired ones are acknowledged like runs.
    let published = Input { acknowledged: vec![2, 3], ..Input::default() };
    check(
        &mut runtime,
        62,
        published,
        Turn { commits: vec![(0, 1)], wake_at: Some(111), ..Turn::default() },
    );
    check(&mut runtime, 63, done(&[1]), Turn { commits: vec![(0, 4)], ..Turn::default() });
}

#[test]
fn nothing_expires_while_suspended_but_running_work_is_still_cancelled() {
    let mut runtime = machine(Limits { slots: 1, ..limits() });
    let running = Offer { deadline: Some(20), ..offer(0, "") };
    let queued = Offer { deadline: Some(10), ..offer(1, "") };
    check(
        &mut runtime,
        1,
        offered([running, queued]),
        Turn { start: vec![0], wake_at: Some(10), ..Turn::default() },
    );
    let begin = Input { revoked: true, ..Input::default() };
    check(&mut runtime, 2, begin, Turn { wake_at: Some(20), ..Turn::default() });
    check(&mut runtime, 20, Input::default(), Turn { cancel: vec![0], ..Turn::default() });
    check(
        &mut runtime,
        21,
        Input { assigned: assigned(2, 0, true), ..Input::default() },
        Turn { settled: vec![(1, Reason::Expired)], ..Turn::default() },
    );
}

#[test]
fn a_lost_partition_that_comes_back_starts_from_nothing() {
    let mut runtime = machine(limits());
    let records = [offer(0, "a"), offer(1, "b"), offer(2, "c")];
    check(&mut runtime, 1, offered(records), Turn { start: vec![0, 1], ..Turn::default() });
    check(
        &mut runtime,
        2,
        Input { executed: vec![1], revoked: true, ..Input::default() },
        Turn::default(),
    );
    check(
        &mut runtime,
        3,
        Input { assigned: Some(vec![]), ..Input::default() },
        Turn {
            cancel: vec![0],
            settled: vec![(1, Reason::Fenced), (2, Reason::Fenced)],
            ..Turn::default()
        },
    );
    // Late news of a fenced run is no news.
    check(&mut runtime, 4, Input { acknowledged: vec![0, 1], ..Input::default() }, Turn::default());
    assert_eq!(runtime.in_flight(), 1);
    let again =
        Offer { place: Place { partition: 0, epoch: 3, offset: Some(0) }, ..offer(10, "a") };
    let back = Input { assigned: assigned(3, 0, true), ..offered([again]) };
    check(&mut runtime, 5, back, Turn::default());
    // The old task of lane "a" has ended only now.
    check(
        &mut runtime,
        6,
        done(&[0]),
        Turn { start: vec![10], settled: vec![(0, Reason::Fenced)], ..Turn::default() },
    );
}

#[test]
fn a_cancelled_run_of_a_lost_partition_is_not_cancelled_twice() {
    let mut runtime = machine(limits());
    let record = Offer { deadline: Some(5), ..offer(0, "") };
    check(
        &mut runtime,
        1,
        offered([record]),
        Turn { start: vec![0], wake_at: Some(5), ..Turn::default() },
    );
    check(&mut runtime, 5, Input::default(), Turn { cancel: vec![0], ..Turn::default() });
    check(&mut runtime, 6, Input { assigned: Some(vec![]), ..Input::default() }, Turn::default());
    let ended = Turn { settled: vec![(0, Reason::Fenced)], ..Turn::default() };
    check(&mut runtime, 7, done(&[0]), ended);
}

#[test]
fn a_flood_goes_at_half_and_every_partition_is_judged_again() {
    let mut runtime =
        AgentRuntime::new(Limits { slots: 1, max_queued_bytes: 10, ..limits() }).expect("sane");
    let all = (0..6)
        .map(|partition| Assigned { partition, epoch: 1, position: 0, ..Assigned::default() })
        .collect();
    let records = (0..6).map(|partition| Offer {
        place: Place { partition, epoch: 1, offset: Some(0) },
        ..offer(u64::from(partition), "")
    });
    // 50 bytes in five partitions of ten each: no partition is too full, but together they are.
    check(
        &mut runtime,
        1,
        Input { assigned: Some(all), ..offered(records) },
        Turn { start: vec![0], pause: vec![1, 2, 3, 4, 5], ..Turn::default() },
    );
    let next = |token: u64, commit| Turn { start: vec![token], commits: commit, ..Turn::default() };
    check(&mut runtime, 2, done(&[0]), next(1, vec![(0, 1)]));
    check(&mut runtime, 3, done(&[1]), next(2, vec![(1, 1)]));
    // 20 bytes are left, in 4 and 5, which are above half themselves.
    check(&mut runtime, 4, done(&[2]), Turn { resume: vec![1, 2, 3], ..next(3, vec![(2, 1)]) });
    check(&mut runtime, 5, done(&[3]), Turn { resume: vec![4], ..next(4, vec![(3, 1)]) });
}

#[test]
fn misuse_changes_nothing() {
    let mut runtime = machine(limits());
    check(&mut runtime, 5, offered([offer(0, "")]), Turn { start: vec![0], ..Turn::default() });
    let before = runtime.stats();
    let twice = Assigned { partition: 4, epoch: 2, position: 0, ..Assigned::default() };
    for (now, input, misuse) in [
        (4, done(&[0]), Misuse::ClockWentBack { now: 4, before: 5 }),
        (6, Input { offered: vec![offer(0, "")], ..done(&[0]) }, Misuse::TokenReused { token: 0 }),
        (6, offered([offer(9, ""), offer(7, ""), offer(9, "")]), Misuse::TokenReused { token: 9 }),
        (
            6,
            Input { assigned: Some(vec![twice.clone(), twice]), ..done(&[0]) },
            Misuse::PartitionTwice { partition: 4 },
        ),
    ] {
        assert_eq!(runtime.turn(now, input), Err(misuse));
        assert_eq!(runtime.stats(), before);
    }
}

#[test]
fn limits_are_checked() {
    let absurd = [
        Limits { slots: 0, ..limits() },
        Limits { max_queued_records: 0, ..limits() },
        Limits { max_queued_bytes: u64::MAX, ..limits() },
        Limits { timeout_ms: Some(0), ..limits() },
    ];
    for (limits, name) in
        absurd.into_iter().zip(["slots", "max_queued_records", "max_queued_bytes", "timeout_ms"])
    {
        let refusal = AgentRuntime::new(limits).expect_err("absurd");
        assert!(refusal.to_string().starts_with(name), "{refusal}");
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut runtime = machine(Limits { timeout_ms: Some(1_000), ..limits() });
    let last = Offer {
        place: Place { partition: 0, epoch: 1, offset: Some(u64::MAX) },
        nbytes: u32::MAX,
        ..offer(u64::MAX, "")
    };
    let turn = runtime.turn(i64::MAX, offered([last])).expect("no misuse");
    assert_eq!((turn.start, turn.wake_at), (vec![u64::MAX], Some(i64::MAX)));
}

/// Five times more keys than slots, one of them hot, run times from 1 to 20 ms: the slots stay busy.
#[test]
fn slots_stay_busy_while_a_partition_is_blocked_by_its_first_record() {
    let slots = 10;
    let mut runtime = machine(Limits { slots, ..limits() });
    let mut waiting: VecDeque<Offer> =
        (0..2_000).map(|token| offer(token, &format!("key-{}", token % 50))).collect();
    let mut ends: BTreeSet<(i64, u64)> = BTreeSet::new();
    let (mut busy, mut now) = (0, 0);
    while !waiting.is_empty() {
        now += 1;
        let mut ended = Vec::new();
        while let Some(&(end, token)) = ends.first()
            && end <= now
        {
            ends.pop_first();
            ended.push(token);
        }
        let room = usize::try_from(100 - runtime.queued()).expect("within the limit");
        let batch = waiting.drain(..room.min(waiting.len())).collect();
        let turn = runtime.turn(now, Input { offered: batch, ..done(&ended) }).expect("no misuse");
        for token in turn.start {
            // The first record takes as long as everything else together.
            let takes =
                if token == 0 { 1_000_000 } else { 1 + i64::try_from(token % 20).expect("small") };
            ends.insert((now + takes, token));
        }
        assert!(turn.commits.iter().all(|it| *it == (0, 0)), "the first record is not done");
        busy += runtime.running();
    }
    let share = busy * 100 / (slots * u64::try_from(now).expect("positive"));
    assert!(share >= 95, "slots were busy {share} % of the time");
}

#[test]
fn a_failed_run_waits_in_its_lane_without_a_slot() {
    let mut runtime = machine(Limits { slots: 1, retries: 1, backoff_ms: 0, ..limits() });
    let records = [offer(0, "a"), offer(1, "a"), offer(2, "b")];
    check(&mut runtime, 1, offered(records), Turn { start: vec![0], ..Turn::default() });
    check(
        &mut runtime,
        2,
        failed(0, Some(50)),
        Turn { start: vec![2], retries: vec![(0, 1, 50)], wake_at: Some(52), ..Turn::default() },
    );
    check(
        &mut runtime,
        3,
        done(&[2]),
        Turn { commits: vec![(0, 0)], wake_at: Some(52), ..Turn::default() },
    );
    assert_eq!((runtime.in_flight(), runtime.stats().retrying), (0, 1));
    check(&mut runtime, 52, Input::default(), Turn { start: vec![0], ..Turn::default() });
    // For the last time: it is published like an expired one, and only then its lane moves on.
    let exhausted = Turn { settled: vec![(0, Reason::Exhausted)], ..Turn::default() };
    check(&mut runtime, 60, failed(0, None), exhausted);
    let published = Input { acknowledged: vec![0], ..Input::default() };
    let next = Turn { start: vec![1], commits: vec![(0, 1)], ..Turn::default() };
    check(&mut runtime, 61, published, next);
}

#[test]
fn a_retry_that_would_be_too_late_expires_at_once() {
    let mut runtime = machine(Limits { retries: 9, ..limits() });
    let record = Offer { deadline: Some(100), ..offer(0, "") };
    let start = Turn { start: vec![0], wake_at: Some(100), ..Turn::default() };
    check(&mut runtime, 1, offered([record]), start);
    let expired = Turn { settled: vec![(0, Reason::Expired)], ..Turn::default() };
    check(&mut runtime, 2, failed(0, Some(98)), expired);
}

#[test]
fn the_retry_budget_delays_and_never_refuses() {
    let limits = Limits { slots: 9, retries: 9, backoff_ms: 0, retry_budget: 1, ..limits() };
    let mut runtime = machine(limits);
    let start = Turn { start: vec![0, 1, 2], ..Turn::default() };
    check(&mut runtime, 1, offered((0..3).map(|it| offer(it, ""))), start);
    let failures = [0, 1, 2].map(|token| Failure { token, retry_after: None }).to_vec();
    let turn = runtime.turn(2, Input { failed: failures, ..Input::default() }).expect("no misuse");
    assert_eq!((turn.start, turn.wake_at), (vec![0], Some(1_002)));
    let turn = runtime.turn(1_002, Input::default()).expect("no misuse");
    assert_eq!((turn.start, turn.wake_at), (vec![1], Some(2_002)));
    // A success brings the next one forward by a fifth of a second.
    let turn = runtime.turn(1_002, Input { executed: vec![1], ..Input::default() });
    assert_eq!(turn.expect("no misuse").wake_at, Some(1_802));
}

#[test]
fn nothing_is_retried_while_suspended_and_a_lost_retry_is_fenced() {
    let mut runtime = machine(Limits { retries: 9, backoff_ms: 0, ..limits() });
    let start = Turn { start: vec![0, 1], ..Turn::default() };
    check(&mut runtime, 1, offered([offer(0, "a"), offer(1, "b"), offer(2, "a")]), start);
    let suspends = Input { revoked: true, ..failed(0, Some(5)) };
    check(&mut runtime, 2, suspends, Turn { retries: vec![(0, 1, 5)], ..Turn::default() });
    check(&mut runtime, 50, Input::default(), Turn::default());
    let lost = Input { assigned: Some(vec![]), ..Input::default() };
    check(
        &mut runtime,
        51,
        lost,
        Turn {
            cancel: vec![1],
            settled: vec![(0, Reason::Fenced), (2, Reason::Fenced)],
            ..Turn::default()
        },
    );
    assert_eq!((runtime.stats().retrying, runtime.in_flight()), (0, 1));
}

/// Found by the simulation: it was settled as exhausted too, and its failure would have been
/// published for a partition that is somebody else's.
#[test]
fn a_last_failure_is_no_outcome_when_its_partition_is_lost_in_the_same_turn() {
    let mut runtime = machine(limits());
    check(&mut runtime, 1, offered([offer(0, "a")]), Turn { start: vec![0], ..Turn::default() });
    let lost = Input { assigned: Some(vec![]), ..failed(0, None) };
    let fenced = Turn { settled: vec![(0, Reason::Fenced)], ..Turn::default() };
    check(&mut runtime, 2, lost, fenced.clone());
    // Nor is one before the last a retry.
    let mut runtime = machine(Limits { retries: 1, ..limits() });
    check(&mut runtime, 1, offered([offer(0, "a")]), Turn { start: vec![0], ..Turn::default() });
    let lost = Input { assigned: Some(vec![]), ..failed(0, None) };
    check(&mut runtime, 2, lost, fenced);
}

#[test]
fn a_repeated_identity_is_done_at_once_and_only_in_its_own_partition() {
    let mut runtime = machine(Limits { slots: 9, dedupe_records: 5, dedupe_ms: 100, ..limits() });
    let event = |token, timestamp| Offer {
        identity: Some(Identity::of(b"order 7")),
        timestamp,
        ..offer(token, "")
    };
    let elsewhere =
        Offer { place: Place { partition: 1, epoch: 1, offset: Some(0) }, ..event(9, 0) };
    let both = [0, 1].map(|partition| Assigned { partition, epoch: 1, ..Assigned::default() });
    let seen = Seen { partition: 0, offset: 9, identity: Identity::of(b"order 7"), timestamp: 0 };
    check(
        &mut runtime,
        1,
        Input {
            assigned: Some(both.to_vec()),
            seen: vec![seen],
            ..offered([event(10, 100), elsewhere, event(11, 101), event(17, 101)])
        },
        // 11 repeats 10, which was itself a repetition; 17 is out of reach.
        Turn {
            start: vec![9, 17],
            settled: vec![(10, Reason::Duplicate), (11, Reason::Duplicate)],
            commits: vec![(0, 17)],
            ..Turn::default()
        },
    );
    assert_eq!(runtime.stats().duplicates, 2);
}

#[test]
fn what_was_done_above_the_commit_is_skipped_after_a_restart() {
    let mut runtime = machine(Limits { slots: 9, ..limits() });
    let start = Turn { start: vec![0, 1, 2, 3, 4, 5], ..Turn::default() };
    check(&mut runtime, 1, offered((0..6).map(|it| offer(it, ""))), start);
    check(&mut runtime, 2, done(&[0, 2, 3, 5]), Turn { commits: vec![(0, 1)], ..Turn::default() });
    let Commit { offset, reach, done: set } = runtime.commit_of(0).expect("it is ours");
    assert_eq!((offset, reach, set.as_slice()), (1, 6, [1, 0b1_0110].as_slice()));

    let mut restarted = AgentRuntime::new(limits()).expect("sane");
    let assigned = Assigned { epoch: 1, position: 1, done: set.into(), ..Assigned::default() };
    check(
        &mut restarted,
        1,
        Input { assigned: Some(vec![assigned]), ..offered((1..6).map(|it| offer(it, ""))) },
        Turn {
            start: vec![1, 4],
            settled: [2, 3, 5].map(|it| (it, Reason::Redelivered)).to_vec(),
            ..Turn::default()
        },
    );
    check(&mut restarted, 2, done(&[1, 4]), Turn { commits: vec![(0, 6)], ..Turn::default() });
}

#[test]
fn a_done_set_that_is_nearly_full_stops_all_but_what_lets_it_shrink() {
    let mut runtime =
        machine(Limits { slots: 2, retries: 1, backoff_ms: 0, max_done_bytes: 4, ..limits() });
    // A hole after every second one.
    let records = [0, 2, 4, 6, 18, 20].map(|it| offer(it, ""));
    let start = Turn { start: vec![0, 2], ..Turn::default() };
    check(&mut runtime, 1, offered(records), start);
    let told = vec![(0, 0)];
    let next = |token| Turn { start: vec![token], commits: told.clone(), ..Turn::default() };
    check(&mut runtime, 2, done(&[2]), next(4));
    check(&mut runtime, 3, done(&[4]), next(6));
    check(&mut runtime, 4, done(&[6]), next(18));
    let full = Turn { pause: vec![0], commits: told.clone(), ..Turn::default() };
    check(&mut runtime, 5, done(&[18]), full);
    assert_eq!(runtime.stats().full_partitions, 1);
    // The record everything waits for is tried again nevertheless.
    let again = Turn { retries: vec![(0, 1, 7)], wake_at: Some(13), ..Turn::default() };
    check(&mut runtime, 6, failed(0, Some(7)), again);
    check(&mut runtime, 13, Input::default(), Turn { start: vec![0], ..Turn::default() });
    check(
        &mut runtime,
        14,
        done(&[0]),
        Turn { start: vec![20], commits: vec![(0, 20)], resume: vec![0], ..Turn::default() },
    );
}

#[test]
fn what_may_have_killed_the_process_runs_alone() {
    let mut runtime = AgentRuntime::new(Limits { slots: 9, ..limits() }).expect("sane");
    let careful = Assigned { epoch: 1, careful_until: 2, ..Assigned::default() };
    let firing = Offer { place: Place { partition: 0, epoch: 1, offset: None }, ..offer(7, "") };
    let records = [offer(0, "a"), offer(1, "b"), offer(2, "c"), offer(3, "c"), firing];
    let only = |token| Turn { start: vec![token], ..Turn::default() };
    check(&mut runtime, 1, Input { assigned: Some(vec![careful]), ..offered(records) }, only(0));
    // A run without an offset may be the one, too.
    check(&mut runtime, 2, done(&[0]), Turn { commits: vec![(0, 1)], ..only(7) });
    check(&mut runtime, 3, done(&[7]), only(1));
    check(&mut runtime, 4, done(&[1]), Turn { commits: vec![(0, 2)], ..only(2) });
}

#[test]
fn a_run_without_a_record_commits_nothing_and_is_lost_with_its_partition() {
    let mut runtime = machine(limits());
    let firing =
        |token| Offer { place: Place { partition: 0, epoch: 1, offset: None }, ..offer(token, "") };
    let start = Turn { start: vec![5, 6], ..Turn::default() };
    check(&mut runtime, 1, offered([firing(5), firing(6)]), start);
    check(&mut runtime, 2, done(&[5]), Turn::default());
    let lost = Input { assigned: Some(vec![]), ..Input::default() };
    check(&mut runtime, 3, lost, Turn { cancel: vec![6], ..Turn::default() });
    let ended = Turn { settled: vec![(6, Reason::Fenced)], ..Turn::default() };
    check(&mut runtime, 4, done(&[6]), ended);
}

#[test]
fn a_budget_is_for_all_calls_at_once_and_all_attempts_together() {
    let mut runtime = machine(Limits { retries: 1, backoff_ms: 0, ..limits() });
    let budget = Budget { tokens: Some(100), ..Budget::default() };
    let record = Offer { budget, ..offer(0, "") };
    check(&mut runtime, 1, offered([record]), Turn { start: vec![0], ..Turn::default() });
    let asked = Input { asked: vec![ask(1, 60), ask(2, 60)], ..Input::default() };
    let answers = Turn { granted: vec![1], refused: vec![(2, Refusal::Tokens)], ..Turn::default() };
    check(&mut runtime, 2, asked, answers);
    let spent = vec![Spent { ask: 1, price: Amount { tokens: 30, micro_usd: 0 } }];
    let asked = Input { spent, asked: vec![ask(3, 60)], ..Input::default() };
    check(&mut runtime, 3, asked, Turn { granted: vec![3], ..Turn::default() });
    // Nobody says what call 3 took, so it stays booked.
    let again = Turn { start: vec![0], retries: vec![(0, 1, 0)], ..Turn::default() };
    check(&mut runtime, 4, failed(0, None), again);
    let asked = Input { asked: vec![ask(4, 11), ask(5, 10)], ..Input::default() };
    let answers = Turn { granted: vec![5], refused: vec![(4, Refusal::Tokens)], ..Turn::default() };
    check(&mut runtime, 5, asked, answers);
}

#[test]
fn calls_wait_for_the_rate_and_are_answered_when_their_run_ends() {
    let mut runtime =
        machine(Limits { calls_per_minute: Some(60), timeout_ms: Some(500), ..limits() });
    let start = Turn { start: vec![0], wake_at: Some(501), ..Turn::default() };
    check(&mut runtime, 1, offered([offer(0, "")]), start);
    let asked = Input { asked: (1..=8).map(|it| ask(it, 5)).collect(), ..Input::default() };
    // Six, which is a tenth of a minute's, at once; then one per second.
    let granted = Turn { granted: vec![1, 2, 3, 4, 5, 6], wake_at: Some(501), ..Turn::default() };
    check(&mut runtime, 2, asked, granted);
    check(
        &mut runtime,
        501,
        Input::default(),
        Turn {
            cancel: vec![0],
            refused: vec![(7, Refusal::Ended), (8, Refusal::Ended)],
            ..Turn::default()
        },
    );
}

/// A minute of asking as often as possible: at most 1.1 times the rate gets through.
#[test]
fn no_minute_sees_more_than_the_rate_and_a_tenth() {
    let mut runtime =
        machine(Limits { calls_per_minute: Some(50), tokens_per_minute: Some(1_000), ..limits() });
    let start = Turn { start: vec![0], ..Turn::default() };
    check(&mut runtime, 0, offered([offer(0, "")]), start);
    let asked = (0..500).map(|it| ask(it, 20)).collect();
    let mut granted =
        runtime.turn(0, Input { asked, ..Input::default() }).expect("no misuse").granted;
    for now in 1..60_000 {
        granted.extend(runtime.turn(now, Input::default()).expect("no misuse").granted);
    }
    assert!((50..=55).contains(&granted.len()), "{} calls in a minute", granted.len());
    assert!(granted.is_sorted());
}
