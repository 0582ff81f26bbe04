//! Times, dependencies and what follows, with a clock in the hand.

use super::*;
use crate::config::{Channels, StepAction, StepConfig};
use crate::jobs::schedule::Schedule;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// 20 November 2026, midnight UTC.
const START: i64 = 1_795_132_800_000;

fn job(name: &str, cron: Option<&str>, after: &[&str]) -> JobConfig {
    JobConfig {
        name: name.into(),
        schedule: cron.map(|cron| Schedule::parse(cron, chrono_tz::Tz::UTC).unwrap()),
        zone: chrono_tz::Tz::UTC,
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        steps: vec![StepConfig { name: "s".into(), action: StepAction::Flush("t".into()) }],
        retries: 0,
        retry_delay_ms: 1,
        timeout_ms: 1_000,
        deadline: None,
        catch_up: true,
        channels: Channels::default(),
    }
}

fn book(jobs: &[JobConfig], now: i64) -> Book {
    Book::new(jobs.to_vec(), Default::default(), now)
}

/// Ends and opens again, as a restart does.
fn restart(book: Book, now: i64) -> Book {
    let runs: BTreeMap<u64, Run> = book
        .runs
        .into_iter()
        .map(|(number, run)| (number, serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap()))
        .collect();
    Book::new(book.jobs, (book.scheduled, runs), now)
}

fn names(book: &Book, started: &[u64]) -> Vec<String> {
    started.iter().map(|number| format!("{} {}", book.runs[number].job, book.runs[number].day)).collect()
}

#[test]
fn a_job_runs_at_its_time_for_the_day_before_and_never_twice_at_once() {
    let mut book = book(&[job("nightly", Some("0 2 * * *"), &[])], START);
    assert!(book.tick(START).is_empty(), "a new job does not make up for times before it was declared");
    assert!(book.tick(START + 119 * MINUTE).is_empty());
    let started = book.tick(START + 120 * MINUTE);
    assert_eq!(names(&book, &started), ["nightly 2026-11-19"]);
    assert!(book.tick(START + 121 * MINUTE).is_empty());
    assert!(book.tick(START + DAY + 120 * MINUTE).is_empty(), "the first one still runs");
    book.finish(started[0], Ok(()), START + DAY + 130 * MINUTE);
    let second = book.tick(START + DAY + 130 * MINUTE);
    assert_eq!(names(&book, &second), ["nightly 2026-11-20"]);
    assert_eq!(book.next_time(&book.jobs()[0]), Some(START + 2 * DAY + 120 * MINUTE));
}

#[test]
fn of_the_missed_times_the_latest_is_made_up_for() {
    let mut book = restart(book(&[job("nightly", Some("0 2 * * *"), &[])], START), START + 5 * DAY + 180 * MINUTE);
    let started = book.tick(START + 5 * DAY + 180 * MINUTE);
    assert_eq!(names(&book, &started), ["nightly 2026-11-24"]);
    book.finish(started[0], Ok(()), START + 5 * DAY + 181 * MINUTE);
    assert!(book.tick(START + 5 * DAY + 182 * MINUTE).is_empty());

    let never = JobConfig { catch_up: false, ..job("nightly", Some("0 2 * * *"), &[]) };
    let mut book = restart(self::book(&[never], START), START + 5 * DAY + 180 * MINUTE);
    assert!(book.tick(START + 5 * DAY + 180 * MINUTE).is_empty());
    assert_eq!(book.tick(START + 6 * DAY + 120 * MINUTE).len(), 1);
}

#[test]
fn a_year_of_missed_minutes_is_one_run() {
    let mut book = restart(book(&[job("often", Some("* * * * *"), &[])], START), START + 365 * DAY);
    let started = book.tick(START + 365 * DAY + 30_000);
    assert_eq!(started.len(), 1);
    assert_eq!(book.runs[&started[0]].due_ms, START + 365 * DAY);
    assert_eq!(book.runs.len(), 1);
}

#[test]
fn followers_run_when_all_they_wait_for_has_succeeded_for_the_same_day() {
    let jobs = [
        job("a", Some("0 2 * * *"), &[]),
        job("b", Some("0 3 * * *"), &[]),
        job("both", None, &["a", "b"]),
        job("timed", Some("30 2 * * *"), &["a"]),
    ];
    let mut book = book(&jobs, START);
    let a = book.tick(START + 120 * MINUTE);
    assert!(book.tick(START + 150 * MINUTE).is_empty(), "timed is due but a still runs");
    book.finish(a[0], Err("no".into()), START + 151 * MINUTE);
    assert!(book.tick(START + 152 * MINUTE).is_empty(), "a failed: timed goes on waiting");
    let b = book.tick(START + 180 * MINUTE);
    assert_eq!(names(&book, &b), ["b 2026-11-19"]);
    book.finish(b[0], Ok(()), START + 181 * MINUTE);
    assert!(book.tick(START + 182 * MINUTE).is_empty());
    // a is run again for that day, by hand.
    let again = book.request("a", book.runs[&a[0]].day, START + 200 * MINUTE).unwrap();
    assert_eq!(book.tick(START + 200 * MINUTE), [again]);
    book.finish(again, Ok(()), START + 201 * MINUTE);
    let followers = book.tick(START + 201 * MINUTE);
    assert_eq!(names(&book, &followers), ["both 2026-11-19", "timed 2026-11-19"]);
    // A day that was run again lets its followers run again.
    followers.iter().for_each(|number| book.finish(*number, Ok(()), START + 202 * MINUTE));
    let third = book.request("b", book.runs[&a[0]].day, START + 210 * MINUTE).unwrap();
    book.tick(START + 210 * MINUTE);
    book.finish(third, Ok(()), START + 211 * MINUTE);
    let followers = book.tick(START + 211 * MINUTE);
    assert_eq!(names(&book, &followers), ["both 2026-11-19"]);
}

#[test]
fn an_interrupted_run_is_marked_and_begun_again_but_not_for_ever() {
    let mut book = book(&[job("nightly", Some("0 2 * * *"), &[])], START);
    let mut number = book.tick(START + 120 * MINUTE)[0];
    let first = number;
    for round in 0..4 {
        book = restart(book, START + 121 * MINUTE);
        assert_eq!(book.runs[&number].state, RunState::Interrupted);
        let started = book.tick(START + 121 * MINUTE);
        assert_eq!(names(&book, &started), ["nightly 2026-11-19"], "round {round}");
        assert_eq!(book.runs[&started[0]].trigger, Trigger::Interruption);
        assert_eq!(book.runs[&started[0]].first, Some(first), "what it adds takes the place of what the first added");
        number = started[0];
    }
    book = restart(book, START + 122 * MINUTE);
    assert_eq!(book.runs[&number].state, RunState::Failed);
    assert!(book.tick(START + 122 * MINUTE).is_empty());
}

#[test]
fn failures_and_missed_deadlines_are_told_once_and_so_is_the_recovery() {
    let deadline = chrono::NaiveTime::from_hms_opt(3, 0, 0);
    let mut book = book(&[JobConfig { deadline, ..job("nightly", Some("0 2 * * *"), &[]) }], START);
    let told = |book: &mut Book| {
        let notices = book.take_changes().1;
        notices.into_iter().map(|(_, notice)| format!("{} {}", notice.state, notice.text)).collect::<Vec<_>>()
    };
    let first = book.tick(START + 120 * MINUTE)[0];
    book.finish(first, Err("no disk".into()), START + 121 * MINUTE);
    assert_eq!(told(&mut book), ["firing Job nightly of 2026-11-19 failed: no disk"]);
    book.tick(START + 179 * MINUTE);
    assert!(told(&mut book).is_empty());
    book.tick(START + 180 * MINUTE);
    book.tick(START + 181 * MINUTE);
    assert_eq!(told(&mut book), ["firing Job nightly of 2026-11-19 has missed its deadline"]);
    let again = book.request("nightly", book.runs[&first].day, START + 190 * MINUTE).unwrap();
    assert_eq!(book.tick(START + 190 * MINUTE), [again]);
    book.finish(again, Ok(()), START + 191 * MINUTE);
    assert_eq!(told(&mut book), ["resolved Job nightly of 2026-11-19 succeeded"]);
    let next = book.tick(START + DAY + 120 * MINUTE)[0];
    book.finish(next, Ok(()), START + DAY + 121 * MINUTE);
    book.tick(START + DAY + 200 * MINUTE);
    assert!(told(&mut book).is_empty(), "in time and well: nothing to tell");
}

#[test]
fn what_waits_and_what_is_remembered_has_a_bound() {
    let mut book = book(&[job("manual", None, &[])], START);
    let day = schedule::day_before(START, chrono_tz::Tz::UTC);
    for _ in 0..QUEUED_MAX {
        book.request("manual", day, START).unwrap();
    }
    assert!(book.request("manual", day, START).unwrap_err().contains("cancel"));
    assert_eq!(book.cancel("manual", START).len(), QUEUED_MAX);
    for _ in 0..300 {
        let number = book.request("manual", day, START).unwrap();
        book.tick(START);
        book.finish(number, Ok(()), START);
    }
    assert_eq!(book.runs_of("manual").count(), REMEMBERED_MAX);
    let (changes, _) = book.take_changes();
    let deleted = changes.iter().filter(|change| matches!(change, Change::Delete(..))).count();
    assert_eq!(deleted, 300 + QUEUED_MAX - REMEMBERED_MAX);
}
